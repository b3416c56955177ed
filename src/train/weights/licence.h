/* What a model folder says about its licence, to be passed on with what is made from it. */
#ifndef ESPL_TRAIN_LICENCE_H
#define ESPL_TRAIN_LICENCE_H

#include <jansson.h>

/* Local. A new object {"license", "license_name", "license_link": as the front matter of README.md has them, "file": LICENSE or the like},
 * of which only what is there; NULL where the folder says nothing. */
json_t *espl_licence_of(const char *folder);

#endif
