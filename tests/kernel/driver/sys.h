/* System calls without errno: a result from -4095 to -1 is an error's number, negated.
 *
 * glibc's wrappers would write errno, a page of each process that a fork would then have to copy.
 */
#include <elf.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <asm/ioctls.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static inline long sys6(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define sys0(n) sys6(n, 0, 0, 0, 0, 0, 0)
#define sys1(n, a) sys6(n, (long)(a), 0, 0, 0, 0, 0)
#define sys2(n, a, b) sys6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define sys3(n, a, b, c) sys6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define sys4(n, a, b, c, d) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

static long sys_open(const char *path, long how, long mode)
{
	return sys3(SYS_open, path, how | O_CLOEXEC, mode);
}

static long sys_mmap(uint64_t address, uint64_t length, long rights, long how, long fd, uint64_t offset)
{
	return sys6(SYS_mmap, (long)address, (long)length, rights, how, fd, (long)offset);
}

static int is_error(long result)
{
	return result < 0 && result >= -4095;
}

static void sleep_ms(long milliseconds)
{
	struct timespec span = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

	sys2(SYS_nanosleep, &span, 0);
}

/* Return the result of writing all of a text to an existing file. */
static long write_file(const char *path, const char *text)
{
	long fd = sys_open(path, O_WRONLY, 0);
	long result;

	if (is_error(fd))
		return fd;
	result = sys3(SYS_write, fd, text, strlen(text));
	sys1(SYS_close, fd);
	return is_error(result) ? result : 0;
}
