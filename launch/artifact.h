/* What stands at a path: for the verbs that take anything espalier reads or writes. */
#ifndef ESPL_LAUNCH_ARTIFACT_H
#define ESPL_LAUNCH_ARTIFACT_H

#include "src/core/status.h"

typedef enum espl_artifact {
    ESPL_ARTIFACT_CHECKPOINT, /* a folder with a manifest */
    ESPL_ARTIFACT_RUN,        /* a run folder, or its checkpoints/: what holds checkpoints */
    ESPL_ARTIFACT_MODEL,      /* a Hugging Face folder, or a .safetensors file */
    ESPL_ARTIFACT_TOKENS      /* a token store, .h5 */
} espl_artifact;

/* Local. Tells by names and presence, not by reading. *at is what to open: for a run the folder of its checkpoints, else the path; the
 * caller frees. Errors: data, when it is none of these or absent. */
espl_status espl_artifact_find(const char *path, espl_artifact *kind, char **at);

#endif
