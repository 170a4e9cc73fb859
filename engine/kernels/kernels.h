/* What is called from outside. */
#ifndef SAFELIGHT_KERNELS_H
#define SAFELIGHT_KERNELS_H
#include <stddef.h>
#include <stdint.h>

#define CALLED_FROM_OUTSIDE __attribute__((visibility("default")))

enum { SAFELIGHT_VERSION = 2 /* of these calls: raise it with every change */ };
enum { SAFELIGHT_NONE = 0, SAFELIGHT_AVX512_BF16 = 1, SAFELIGHT_AMX = 2 };

CALLED_FROM_OUTSIDE int safelight_version(void);

/* Give the best path that processor and system allow; asks the system for AMX, which is a permission that the process keeps. */
CALLED_FROM_OUTSIDE int safelight_path(void);

/* A tensor bf16[batch, length, heads, width] whose last axis is contiguous; strides in values. */
struct safelight_tensor {
  void *data;
  int64_t batch, row, head;
};

struct safelight_attention {
  struct safelight_tensor q, k, v, o;
  int64_t batches, heads, queries, keys, width;
  float scale;
  int32_t path;     /* what safelight_path gives, or less */
  int32_t threads;  /* at least 1 */
  const void *cpus; /* the set of processors for threads, as sched_setaffinity takes it, or NULL */
  uint64_t cpus_size; /* bytes */
};

/* softmax(q k^T scale) v for heads of 1 to 160 values and any number of keys but 0. Gives 0; 1 where sizes are
   wrong; 2 where memory ended. */
CALLED_FROM_OUTSIDE int safelight_attention(const struct safelight_attention *asked);

/* x, y: bf16[batches, pixels, channels]; gain, bias: float[channels]; statistics of a picture's groups of channels. */
struct safelight_norm {
  const void *x;
  void *y;
  const float *gain, *bias;
  int64_t batches, pixels, channels, groups;
  double epsilon;
  int32_t silu; /* y / (1 + e^-y) of the result */
  int32_t threads;
  const void *cpus;
  uint64_t cpus_size;
};

/* Gives 0; 1 where sizes are wrong; 2 where memory ended. */
CALLED_FROM_OUTSIDE int safelight_norm(const struct safelight_norm *asked);

/* Run `work` with `argument` in `threads` threads, the caller one of them; new ones may use the processors in `cpus` (NULL: the caller's). */
void safelight_together(void *(*work)(void *), void *argument, int threads, const void *cpus, size_t cpus_size);
#endif
