/* What every twin needs: the layout of a State, and a way out of what no benchmark comes to. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include "layout.h"

/* A twin has the kernel's branches, but of those that no benchmark takes only the question. */
#define UNREACHED() unreached(__FILE__, __LINE__)

__attribute__((noreturn, cold)) static void unreached(const char *file, int line)
{
    fprintf(stderr, "%s:%d: a benchmark came to what the twins do not have\n", file, line);
    abort();
}

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
