/* SPDX-License-Identifier: Apache-2.0
 *
 * A CUDA driver for machines without a GPU. Whatever Triton asks of it succeeds and does nothing;
 * what a launch brings is handed to a listener. Only the calls are here that Triton makes.
 */
#include <stddef.h>

typedef void (*listener)(const void *config, void *function, void **params);

static listener heard = NULL;
static size_t functions = 0;

void listen(listener wanted) { heard = wanted; }

int cuLaunchKernelEx(const void *config, void *function, void **params, void **extra) {
  if (heard)
    heard(config, function, params);
  return 0;
}

/* Older releases of Triton launch so. */
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                   void *stream, void **params, void **extra) {
  struct {
    unsigned grid[3], block[3], shared;
    void *stream, *attributes;
    unsigned number_of_attributes;
  } config = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, NULL, 0};
  return cuLaunchKernelEx(&config, function, params, extra);
}

/* Each function has a handle of its own. */
int cuModuleGetFunction(void **function, void *module, const char *name) {
  *function = (void *)(++functions);
  return 0;
}

int cuPointerGetAttribute(void *data, int attribute, unsigned long long pointer) {
  *(unsigned long long *)data = pointer;
  return 0;
}

/* Hopper's, of what Triton asks for. */
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
  case 75: /* compute capability, major and minor */
    *value = 9;
    break;
  case 76:
    *value = 0;
    break;
  case 97: /* shared memory of a block */
    *value = 232448;
    break;
  default:
    *value = 65536;
  }
  return 0;
}

int cuFuncGetAttribute(int *value, int attribute, void *function) {
  *value = attribute == 0 ? 1024 /* threads of a block */ : 0;
  return 0;
}

static int something;

int cuCtxGetCurrent(void **context) {
  *context = &something;
  return 0;
}

int cuModuleLoadData(void **module, const void *image) {
  *module = &something;
  return 0;
}

int cuGetErrorString(int error, const char **text) {
  *text = "an error of a driver that has none";
  return 0;
}

#define NOTHING(name)                                                                            \
  int name(void) { return 0; }

NOTHING(cuInit)
NOTHING(cuCtxGetDevice)
NOTHING(cuCtxGetLimit)
NOTHING(cuCtxSetCurrent)
NOTHING(cuCtxSetLimit)
NOTHING(cuDeviceGet)
NOTHING(cuDevicePrimaryCtxRetain)
NOTHING(cuDriverGetVersion)
NOTHING(cuFuncSetAttribute)
NOTHING(cuFuncSetCacheConfig)
NOTHING(cuModuleUnload)
NOTHING(cuOccupancyMaxActiveClusters)
NOTHING(cuTensorMapEncodeTiled)
NOTHING(cuTensorMapEncodeIm2col)
