"""What a user of Debian's python3-docker does, as one run; prints JSON for the test to look at.

docker-client.py IMAGE
"""
import json
import socket
import sys

import docker

image = sys.argv[1]
client = docker.from_env()
seen = {"ping": client.ping(), "version": client.version()["Version"]}

repository, tag = image.rsplit(":", 1)
seen["pulled"] = image in client.images.pull(repository, tag=tag).tags
seen["output"] = client.containers.run(
    image, ["echo", "hello"], remove=True
).decode()
try:
    client.containers.run(image, ["sh", "-c", "echo why >&2; exit 3"], remove=True)
except docker.errors.ContainerError as error:
    seen["failure"] = [error.exit_status, error.stderr.decode()]

container = client.containers.run(
    image,
    ["nc", "-ll", "-p", "7", "-e", "cat"],
    detach=True,
    ports={"7/tcp": ("127.0.0.1", None)},
    labels={"by": "python"},
)
try:
    container.reload()
    seen["status"] = container.status
    code, output = container.exec_run(["sh", "-c", "echo inside; exit 4"])
    seen["exec"] = [code, output.decode()]
    (binding,) = container.ports["7/tcp"]
    for _ in range(50):
        with socket.create_connection((binding["HostIp"], int(binding["HostPort"])), 10) as peer:
            try:
                peer.sendall(b"to and fro")
                answer = peer.recv(100).decode()
            except ConnectionError:
                continue
            if answer:
                seen["echo"] = answer
                break
    seen["listed"] = [c.id for c in client.containers.list(filters={"label": "by=python"})] == [container.id]
    container.stop(timeout=0)
    seen["wait"] = container.wait()["StatusCode"]
finally:
    container.remove(force=True)
try:
    client.containers.get(container.id)
except docker.errors.NotFound as error:
    seen["gone"] = error.status_code
print(json.dumps(seen))
