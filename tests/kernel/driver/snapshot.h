/* Snapshots: the counters' own text, under headings that start with "= ".
 *
 *     = snapshot merged 1935        name and milliseconds since the boot
 *     = file vmstat                 then /proc/vmstat as it is
 *     = proc A smaps_rollup         then /proc/PID/smaps_rollup
 *     = map A h 1024 ...            what /proc/PID/pagemap and /proc/kpageflags say of a mapping's pages
 *     = mincore /mnt/f16 4096       then its resident ranges: start and length, one a line
 *
 * Before them the per-CPU lists of pages on their way to the LRU are drained, which an munmap does, and the
 * per-CPU differences of the counters are folded in (vm.stat_refresh).
 */
#define MAX_WATCHED 16
#define PAGEMAP_ENTRIES 8192
#define RUN_PAGES 512
#define RESIDENT_BYTES (1UL << 17) /* files of up to 512 MiB */

static union slot_page *slots_of_all;
static uint64_t *pagemap; /* [PAGEMAP_ENTRIES] */
static uint64_t *page_flags; /* [RUN_PAGES] */
static unsigned char *resident; /* [RESIDENT_BYTES], a byte a page */
static char watched[MAX_WATCHED][128];
static int nr_watched;
static int nr_cpus = 1;
static long kpageflags_fd = -1;

static const struct {
	int bit;
	const char *name;
} PAGE_FLAGS[] = { /* include/uapi/linux/kernel-page-flags.h */
	{ 2, "referenced" }, { 4, "dirty" }, { 5, "lru" }, { 6, "active" }, { 12, "anon" }, { 13, "swapcache" },
	{ 14, "swapbacked" }, { 18, "unevictable" }, { 21, "ksm" }, { 22, "thp" }, { 24, "zero_page" },
};

enum { PRESENT, SWAPPED, FILE_OR_SHARED, EXCLUSIVE, NR_STATES };
static const struct {
	int bit;
	const char *name;
} PAGE_STATES[NR_STATES] = { /* Documentation/admin-guide/mm/pagemap.rst */
	{ 63, "present" }, { 62, "swapped" }, { 61, "file_or_shared" }, { 56, "exclusive" },
};

static long milliseconds(void)
{
	struct timespec now;

	sys2(SYS_clock_gettime, CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void join(char *to, const char *a, const char *b, const char *c)
{
	for (; *a; a++) *to++ = *a;
	for (; *b; b++) *to++ = *b;
	for (; *c; c++) *to++ = *c;
	*to = 0;
}

static void put_heading(const char *kind, const char *a, const char *b)
{
	put("= ");
	put(kind);
	if (*a) { put(" "); put(a); }
	if (*b) { put(" "); put(b); }
	put("\n");
}

/* Append a heading and a file of a folder, and nothing if the file cannot be read or is empty. */
static void put_section(const char *kind, const char *who, const char *name, const char *folder)
{
	char path[256];
	size_t before = output_used;

	join(path, folder, "/", name);
	put_heading(kind, who, name);
	if (put_file(path) <= 0)
		output_used = before;
}

static void put_process_file(const struct slot *slot, const char *name)
{
	char digits[24], folder[48];
	int at = sizeof digits - 1;

	digits[at] = 0;
	for (long pid = slot->pid; pid; pid /= 10)
		digits[--at] = '0' + pid % 10;
	join(folder, "/proc/", digits + at, "");
	put_section("proc", slot->name, name, folder);
}

/* Add up the flags of frames first.. that lie behind each other. */
static void count_flags(uint64_t first, unsigned length, long *flags)
{
	long got = sys4(SYS_pread64, kpageflags_fd, page_flags, length * 8, first * 8);

	for (long i = 0; i < got / 8; i++)
		for (unsigned f = 0; f < COUNT(PAGE_FLAGS); f++)
			flags[f] += page_flags[i] >> PAGE_FLAGS[f].bit & 1;
}

static void put_mapping(const struct slot *slot, const struct mapping *map, long fd)
{
	long states[NR_STATES] = { 0 }, flags[COUNT(PAGE_FLAGS)] = { 0 };
	uint64_t page = map->start / PAGE, left = map->length / PAGE;
	uint64_t run_first = 0;
	unsigned run = 0;

	while (left) {
		uint64_t some = left < PAGEMAP_ENTRIES ? left : PAGEMAP_ENTRIES;

		if (sys4(SYS_pread64, fd, pagemap, some * 8, page * 8) != (long)some * 8)
			break;
		for (uint64_t i = 0; i < some; i++) {
			uint64_t pfn = pagemap[i] & ((1UL << 55) - 1);

			for (int s = 0; s < NR_STATES; s++)
				states[s] += pagemap[i] >> PAGE_STATES[s].bit & 1;
			if (!(pagemap[i] >> 63))
				continue;
			if (run && run < RUN_PAGES && pfn == run_first + run) {
				run++;
				continue;
			}
			if (run)
				count_flags(run_first, run, flags);
			run_first = pfn;
			run = 1;
		}
		page += some;
		left -= some;
	}
	if (run)
		count_flags(run_first, run, flags);
	put_heading("map", slot->name, map->name);
	put("pages ");
	put_number(map->length / PAGE);
	for (int s = 0; s < NR_STATES; s++) {
		put("\n");
		put(PAGE_STATES[s].name);
		put(" ");
		put_number(states[s]);
	}
	for (unsigned f = 0; f < COUNT(PAGE_FLAGS); f++) {
		if (!flags[f])
			continue;
		put("\n");
		put(PAGE_FLAGS[f].name);
		put(" ");
		put_number(flags[f]);
	}
	put("\n");
}

static void put_process(const struct slot *slot)
{
	char digits[24], path[48];
	int at = sizeof digits - 1;
	long fd;

	if (!slot->pid) {
		put_heading("proc", slot->name, "dead");
		return;
	}
	put_process_file(slot, "stat");
	put_process_file(slot, "status");
	put_process_file(slot, "smaps_rollup");
	put_process_file(slot, "oom_score");
	put_process_file(slot, "ksm_merging_pages");
	digits[at] = 0;
	for (long pid = slot->pid; pid; pid /= 10)
		digits[--at] = '0' + pid % 10;
	join(path, "/proc/", digits + at, "/pagemap");
	fd = sys_open(path, O_RDONLY, 0);
	for (int i = 0; i < MAX_MAPPINGS; i++)
		if (slot->mapping[i].name[0])
			put_mapping(slot, &slot->mapping[i], fd);
	sys1(SYS_close, fd);
}

static void put_watched(const char *path)
{
	long fd = sys_open(path, O_RDONLY, 0), at;
	struct stat status;
	uint64_t pages;

	if (is_error(fd))
		return;
	memset(&status, 0, sizeof status);
	sys2(SYS_fstat, fd, &status);
	pages = ((uint64_t)status.st_size + PAGE - 1) / PAGE;
	if (pages > RESIDENT_BYTES)
		pages = RESIDENT_BYTES;
	put_heading("mincore", path, "");
	if (pages) {
		at = sys_mmap(0, pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
		sys3(SYS_mincore, at, pages * PAGE, resident);
		for (uint64_t i = 0; i < pages;) {
			uint64_t first = i;

			while (i < pages && (resident[i] & 1) == (resident[first] & 1))
				i++;
			if (resident[first] & 1) {
				put_number(first);
				put(" ");
				put_number(i - first);
				put("\n");
			}
		}
		sys2(SYS_munmap, at, pages * PAGE);
	}
	sys1(SYS_close, fd);
}

static void settle(void)
{
	static const char *const INFLIGHT[] = { "/sys/block/vda/inflight", "/sys/block/vdb/inflight" };

	for (unsigned disk = 0; disk < COUNT(INFLIGHT); disk++) {
		for (int tries = 0; tries < 2000; tries++) {
			char text[64] = { 0 };
			long fd = sys_open(INFLIGHT[disk], O_RDONLY, 0);
			int idle = 1;

			if (is_error(fd))
				break;
			sys3(SYS_read, fd, text, sizeof text - 1);
			sys1(SYS_close, fd);
			for (char *c = text; *c; c++)
				idle &= !(*c >= '1' && *c <= '9');
			if (idle)
				break;
			sleep_ms(5);
		}
	}
	for (int cpu = nr_cpus - 1; cpu >= 0; cpu--) {
		uint64_t here = 1UL << cpu, anywhere = (1UL << nr_cpus) - 1;
		long at;

		if (nr_cpus > 1)
			sys3(SYS_sched_setaffinity, 0, sizeof here, &here);
		at = sys_mmap(0, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		sys2(SYS_munmap, at, PAGE);
		if (nr_cpus > 1)
			sys3(SYS_sched_setaffinity, 0, sizeof anywhere, &anywhere);
	}
	write_file("/proc/sys/vm/stat_refresh", "1");
}

static void snapshot(const char *name)
{
	static const char *const KSM[] = {
		"full_scans", "max_page_sharing", "merge_across_nodes", "pages_shared", "pages_sharing",
		"pages_to_scan", "pages_unshared", "pages_volatile", "run", "sleep_millisecs", "stable_node_chains",
		"stable_node_chains_prune_millisecs", "stable_node_dups", "use_zero_pages",
	};

	if (output_used > OUTPUT_BYTES - OUTPUT_RESERVE)
		flush_output();
	settle();
	put("= snapshot ");
	put(name);
	put(" ");
	put_number(milliseconds());
	put("\n");
	put_section("file", "", "vmstat", "/proc");
	put_section("file", "", "meminfo", "/proc");
	put_section("file", "", "buddyinfo", "/proc");
	put_section("file", "", "swaps", "/proc");
	for (unsigned i = 0; i < COUNT(KSM); i++)
		put_section("ksm", "", KSM[i], "/sys/kernel/mm/ksm");
	put_section("blk", "vda", "stat", "/sys/block/vda");
	put_section("blk", "vdb", "stat", "/sys/block/vdb");
	for (int i = 0; i < NR_SLOTS; i++)
		if (slots_of_all[i].slot.name[0])
			put_process(&slots_of_all[i].slot);
	for (int i = 0; i < nr_watched; i++)
		put_watched(watched[i]);
}
