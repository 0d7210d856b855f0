/* The name the agent's ELF has as a container's init: Docker's. */
#define INIT_NAME "/sbin/docker-init"

/* Runs a program as process 1's child. Gives what to exit with. */
int init_main(char **arguments);
