/* Page contents: `fill N PATTERN` writes whole pages, each a function of the pattern and the page's index.
 *
 *     zero | const:B        all bytes 0, or B
 *     same:S                the 8-byte value S + index, repeated
 *     uniq:S | mod:K:S      bytes that do not compress, distinct for each (S, index), or (S, index mod K)
 *     half:S | text:S       the first half or quarter as of uniq:S, the rest 0x41
 *
 * Byte 0 of the last four is 0, so that `write val=V` with V > 0 changes a page.
 */
#define OTHER_BYTES 0x4141414141414141UL

static uint64_t mix(uint64_t x) /* splitmix64 */
{
	x += 0x9e3779b97f4a7c15UL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9UL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebUL;
	return x ^ (x >> 31);
}

static void fill_repeated(volatile uint64_t *page, uint64_t value)
{
	for (unsigned i = 0; i < PAGE / 8; i++)
		page[i] = value;
}

static void fill_mixed(volatile uint64_t *page, uint64_t seed, uint64_t index, unsigned words)
{
	uint64_t key = mix(mix(seed) ^ index);

	page[0] = mix(key) & ~0xffUL;
	for (unsigned i = 1; i < PAGE / 8; i++)
		page[i] = i < words ? mix(key + i) : OTHER_BYTES;
}

/* Fill one page; return 0, or -1 if there is no such pattern. */
static int fill_page(volatile uint64_t *page, const char *pattern, uint64_t index)
{
	const char *colon = strchr(pattern, ':');
	const char *second = colon ? strchr(colon + 1, ':') : NULL;
	uint64_t first = colon ? number(colon + 1) : 0;

	if (same(pattern, "zero"))
		fill_repeated(page, 0);
	else if (!strncmp(pattern, "const:", 6))
		fill_repeated(page, (first & 0xff) * 0x0101010101010101UL);
	else if (!strncmp(pattern, "same:", 5))
		fill_repeated(page, first + index);
	else if (!strncmp(pattern, "uniq:", 5))
		fill_mixed(page, first, index, PAGE / 8);
	else if (!strncmp(pattern, "mod:", 4) && second && first)
		fill_mixed(page, number(second + 1), index % first, PAGE / 8);
	else if (!strncmp(pattern, "half:", 5))
		fill_mixed(page, first, index, PAGE / 16);
	else if (!strncmp(pattern, "text:", 5))
		fill_mixed(page, first, index, PAGE / 32);
	else
		return -1;
	return 0;
}
