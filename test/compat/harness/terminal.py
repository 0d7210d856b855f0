"""Runs a command on a terminal of its own: terminal.py ROWS COLUMNS COMMAND…

Bytes pass between stdin/stdout and the terminal. File descriptor 3 takes lines "ROWS COLUMNS", which
resize the terminal as a window would. Ends with the command's exit code.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios


def resize(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def main():
    rows, columns, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    pid, terminal = pty.fork()
    if pid == 0:
        os.close(3)
        resize(0, rows, columns)
        os.execvp(command[0], command)
    resize(terminal, rows, columns)
    sources = [terminal, 0, 3]
    orders = b""
    while terminal in sources:
        for fd in select.select(sources, [], [])[0]:
            try:
                data = os.read(fd, 65536)
            except OSError:  # EIO: the command and its children have closed the terminal.
                data = b""
            if not data:
                sources.remove(fd)
            elif fd == terminal:
                os.write(1, data)
            elif fd == 0:
                while data:
                    data = data[os.write(terminal, data) :]
            else:
                orders += data
                while b"\n" in orders:
                    line, orders = orders.split(b"\n", 1)
                    resize(terminal, *map(int, line.split()))
    status = os.waitpid(pid, 0)[1]
    sys.exit(os.waitstatus_to_exitcode(status) & 255)


main()
