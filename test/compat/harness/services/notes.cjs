// A small web application that keeps notes in PostgreSQL: POST /notes with the text as the body answers the
// note's number, GET /notes/N the text, GET /count how many there are.
const console = require("node:console");
const http = require("node:http");
const process = require("node:process");
const { setTimeout } = require("node:timers");
const { Pool } = require("pg");

// A database whose machine is gone says no goodbye: what it does not answer is given up, with its connection.
const pool = new Pool({ connectionTimeoutMillis: 60000, query_timeout: 15000 });
// A database that goes away takes its idle connections with it; the next query makes a new one.
pool.on("error", (error) => console.error(`database: ${error.message}`));

async function answer(request) {
  const { method, url } = request;
  if (method === "POST" && url === "/notes") {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { rows } = await pool.query(
      "INSERT INTO notes (text) VALUES ($1) RETURNING id",
      [text],
    );
    return [201, String(rows[0].id)];
  }
  const [, id] = /^\/notes\/(\d+)$/.exec(url) ?? [];
  if (id) {
    const { rows } = await pool.query("SELECT text FROM notes WHERE id = $1", [
      id,
    ]);
    return rows[0] ? [200, rows[0].text] : [404, "no such note"];
  }
  if (url === "/count") {
    const { rows } = await pool.query("SELECT count(*)::int AS n FROM notes");
    return [200, String(rows[0].n)];
  }
  return [404, "not found"];
}

const server = http.createServer((request, response) => {
  answer(request)
    .catch((error) => [503, `database: ${error.message}`])
    .then(([status, text]) => response.writeHead(status).end(text));
});

async function open() {
  for (;;) {
    try {
      await pool.query(
        "CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text NOT NULL)",
      );
      break;
    } catch (error) {
      console.error(`database: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
  server.listen(3000, () => console.log("listening"));
}

open();
process.on("SIGTERM", () => process.exit(0));
