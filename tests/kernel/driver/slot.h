/* What the controller and one process tell each other: a page of the file /slots, mapped by both.
 *
 *     controller:  slot.line = "write h len=64P"; one byte into the command pipe
 *     process:     does it; slot.problem = "" or what is wrong; one byte into the reply pipe
 *
 * A page of a file is not copied by a fork, so a process that notes a mapping after a fork causes no fault.
 */
#define NR_SLOTS 32
#define NAME 16
#define MAX_MAPPINGS 60
#define MAX_FILES 16

struct mapping {
	char name[NAME]; /* empty: unused */
	uint64_t start, length;
};

struct file {
	char name[NAME];
	long fd;
};

struct slot {
	char name[NAME]; /* empty: unused */
	long pid; /* 0: dead */
	long busy; /* a command is under way */
	long line_number; /* of that command */
	long command[2], reply[2]; /* pipes */
	uint64_t stack_base; /* highest page boundary below the frame of process_main */
	uint64_t child; /* slot that the fork under way fills */
	char go;
	char line[640];
	char problem[160];
	struct mapping mapping[MAX_MAPPINGS];
	struct file file[MAX_FILES];
};

_Static_assert(sizeof(struct slot) <= PAGE, "a slot is a page");

union slot_page {
	struct slot slot;
	char page[PAGE];
};

static union slot_page *map_slots(void)
{
	long fd = sys_open("/slots", O_RDWR, 0);
	long at = sys_mmap(0, NR_SLOTS * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	sys1(SYS_close, fd);
	return is_error(at) ? NULL : (union slot_page *)at;
}

static void copy_name(char *to, const char *from)
{
	int i;

	for (i = 0; i < NAME - 1 && from[i]; i++)
		to[i] = from[i];
	to[i] = 0;
}
