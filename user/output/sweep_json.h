/* The parts of a sweep's result as JSON (output/sweep.h writes it). All are NULL where there is no memory. */
#ifndef ALLOCTRACE_SWEEP_JSON_H
#define ALLOCTRACE_SWEEP_JSON_H

#include "output/sweep.h"

#include <jansson.h>

/* Escaped as everywhere: JSON knows nothing but UTF-8. NULL: null. */
json_t *sweep_json_text(const char *string);

/* One process, an object. */
json_t *sweep_json_process(const struct sweep_row *row);

#endif
