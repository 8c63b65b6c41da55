/* What the kernel of this machine itself takes for what the simulated one does: first touch, fork, copy-on-write,
 * munmap, of anonymous memory in small pages.
 *
 *     own_kernel PAGES RUNS        prints, for each run and operation, a line: NAME PAGES NANOSECONDS
 *
 * The nanoseconds are CPU time of the calling thread. Fork is timed alone, in the parent: neither the child's end nor
 * waiting for it counts, as neither counts in the benchmark beside it. The child sleeps until the parent has written
 * to every page, so each write copies; each run begins with a fresh mapping, so each fork finds writable entries.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define ARGUMENTS 3

static long long cpu_time_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

__attribute__((noreturn)) static void fail(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static void report(const char *name, long nr_pages, long long begin_ns)
{
    printf("%s %ld %lld\n", name, nr_pages, cpu_time_ns() - begin_ns);
}

static void write_each(volatile char *memory, long nr_pages, long page_bytes, char value)
{
    for (long page = 0; page < nr_pages; page++)
        memory[page * page_bytes] = value;
}

/* Fork a child that lives until the other end of the pipe is closed. */
static pid_t fork_sleeper(const int ends[2])
{
    pid_t child = fork();
    if (child == 0) {
        char nothing;
        close(ends[1]);
        _exit(read(ends[0], &nothing, 1) == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    return child;
}

static void run(long nr_pages, long page_bytes)
{
    size_t length = (size_t)nr_pages * (size_t)page_bytes;
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    madvise(memory, length, MADV_NOHUGEPAGE); /* fails where there are no huge pages to avoid */

    long long begin_ns = cpu_time_ns();
    write_each(memory, nr_pages, page_bytes, 1);
    report("first_touch", nr_pages, begin_ns);

    int ends[2];
    if (pipe(ends) != 0)
        fail("pipe");
    fflush(stdout); /* the child must not hold a copy of what is still to be written */
    begin_ns = cpu_time_ns();
    pid_t child = fork_sleeper(ends);
    if (child < 0)
        fail("fork");
    report("fork", nr_pages, begin_ns);

    begin_ns = cpu_time_ns();
    write_each(memory, nr_pages, page_bytes, 2);
    report("copy_on_write", nr_pages, begin_ns);

    int status;
    close(ends[1]);
    close(ends[0]);
    if (waitpid(child, &status, 0) != child || status != EXIT_SUCCESS)
        fail("waitpid");

    begin_ns = cpu_time_ns();
    munmap(memory, length);
    report("munmap", nr_pages, begin_ns);
}

int main(int argc, char **argv)
{
    if (argc != ARGUMENTS) {
        fprintf(stderr, "usage: own_kernel PAGES RUNS\n");
        return EXIT_FAILURE;
    }
    long nr_pages = atol(argv[1]), nr_runs = atol(argv[2]);
    for (long i = 0; i < nr_runs; i++)
        run(nr_pages, sysconf(_SC_PAGESIZE));
    return EXIT_SUCCESS;
}
