/* The workload language, as far as the driver sees it: one line at a time, its loops already unrolled.
 *
 *     8M+1P*3          numbers are sums of products, with suffixes K, M, G and P (a page)
 *     write h off=1M   a verb, plain words, and options with a value
 */
#define MAX_WORDS 32

struct line {
	char *word[MAX_WORDS]; /* [count] of which word[0] is the verb; options lie behind the others */
	int count;
	char *option[MAX_WORDS];
	int options;
};

static int same(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

/* Cut a text into words, in place. */
static void split(char *text, struct line *line)
{
	line->count = line->options = 0;
	while (*text && line->count + line->options < MAX_WORDS) {
		char *start;

		while (*text == ' ' || *text == '\t')
			*text++ = 0;
		if (!*text)
			break;
		start = text;
		while (*text && *text != ' ' && *text != '\t')
			text++;
		if (*text)
			*text++ = 0;
		if (line->count && strchr(start, '='))
			line->option[line->options++] = start;
		else
			line->word[line->count++] = start;
	}
}

static const char *option_of(const struct line *line, const char *name)
{
	size_t length = strlen(name);

	for (int i = 0; i < line->options; i++)
		if (!strncmp(line->option[i], name, length) && line->option[i][length] == '=')
			return line->option[i] + length + 1;
	return NULL;
}

static int has_flag(const struct line *line, const char *flag)
{
	for (int i = 2; i < line->count; i++)
		if (same(line->word[i], flag))
			return 1;
	return 0;
}

static const char *read_term(const char *text, uint64_t *value)
{
	unsigned base = 10;

	*value = 0;
	if (text[0] == '0' && text[1] == 'x') {
		base = 16;
		text += 2;
	}
	for (;; text++) {
		unsigned digit = 99;

		if (*text >= '0' && *text <= '9')
			digit = *text - '0';
		else if (base == 16 && (*text | 32) >= 'a' && (*text | 32) <= 'f')
			digit = (*text | 32) - 'a' + 10;
		if (digit >= base)
			break;
		*value = *value * base + digit;
	}
	switch (*text) {
	case 'K': *value <<= 10; return text + 1;
	case 'M': *value <<= 20; return text + 1;
	case 'G': *value <<= 30; return text + 1;
	case 'P': *value *= PAGE; return text + 1;
	}
	return text;
}

static uint64_t number(const char *text)
{
	uint64_t sum = 0, product = 1, value;

	for (;;) {
		text = read_term(text, &value);
		product *= value;
		if (*text == '*') {
			text++;
			continue;
		}
		sum += product;
		product = 1;
		if (*text != '+')
			return sum;
		text++;
	}
}

static uint64_t number_option(const struct line *line, const char *name, uint64_t otherwise)
{
	const char *text = option_of(line, name);

	return text ? number(text) : otherwise;
}
