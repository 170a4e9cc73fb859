/* What is called from outside. */
#ifndef SAFELIGHT_KERNELS_H
#define SAFELIGHT_KERNELS_H
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define CALLED_FROM_OUTSIDE __attribute__((visibility("default")))

enum { SAFELIGHT_VERSION = 6 /* of these calls: raise it with every change */ };
enum { SAFELIGHT_NONE = 0, SAFELIGHT_AVX2 = 1, SAFELIGHT_AVX512_BF16 = 2, SAFELIGHT_AMX = 3 };

CALLED_FROM_OUTSIDE int safelight_version(void);

/* Give the best path that processor and system allow; asks the system for AMX, which is a permission that the process keeps. */
CALLED_FROM_OUTSIDE int safelight_path(void);

/* Give 1 where processor and system have vectors of 512 bits. */
CALLED_FROM_OUTSIDE int safelight_has_avx512(void);

/* A tensor bf16 or float[batch, length, heads, width] whose last axis is contiguous; strides in values. */
struct safelight_tensor {
  void *data;
  int64_t batch, row, head;
};

struct safelight_attention {
  struct safelight_tensor q, k, v, o;
  int64_t batches, heads, queries, keys, width;
  float scale;
  int32_t path;     /* what safelight_path gives, or less, but AVX512_BF16 at least */
  int32_t threads;  /* at least 1 */
  const void *cpus; /* the set of processors for threads, as sched_setaffinity takes it, or NULL */
  uint64_t cpus_size; /* bytes */
};

/* softmax(q k^T scale) v for heads of 1 to 160 values and any number of keys but 0. Gives 0; 1 where sizes are
   wrong; 2 where memory ended. */
CALLED_FROM_OUTSIDE int safelight_attention(const struct safelight_attention *asked);

/* The same of float tensors, on AVX2, for heads of a multiple of 8 values; `path` is not looked at. */
CALLED_FROM_OUTSIDE int safelight_attention_f32(const struct safelight_attention *asked);

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

/* The same of float x and y, on AVX2, for a multiple of 8 channels. */
CALLED_FROM_OUTSIDE int safelight_norm_f32(const struct safelight_norm *asked);

/* x: float[batches, height, width, inputs], or half as high and wide where each value is four pixels (`doubled`);
   y: float[batches, height, width, outputs]; both counts of channels are multiples of 8.
   weights: float[outputs / 16][inputs][9][16], or in fp16 (`half`), as `engine.kernels.winograd` packs them;
   bias: float[batches][outputs];
   more: what is added to y, of its shape, or NULL. */
struct safelight_convolution {
  const float *x;
  float *y;
  const void *weights;
  const float *bias, *more;
  int64_t batches, height, width, inputs, outputs;
  int32_t doubled, half, threads;
  const void *cpus;
  uint64_t cpus_size;
};

/* y = x convolved with 3 by 3 weights, zeros around x, plus bias and more. Gives 0; 1 where sizes are wrong; 2 where memory ended. */
CALLED_FROM_OUTSIDE int safelight_convolution(const struct safelight_convolution *asked);

/* Run `work` with `argument` in `threads` threads, the caller one of them; new ones may use the processors in `cpus` (NULL: the caller's). */
void safelight_together(void *(*work)(void *), void *argument, int threads, const void *cpus, size_t cpus_size);

/* Wait until `begin` pieces of work are done. Pieces are numbered in the order in which threads take them, so all that is waited for is under way.
   A thread that is started anew for what comes next may wait for a processor for milliseconds: threads are started once a call. */
static inline void safelight_wait(atomic_llong *done, int64_t begin) {
  for (int tries = 0; atomic_load_explicit(done, memory_order_acquire) < begin; tries++)
    if (tries < 1000) __builtin_ia32_pause();
    else sched_yield();
}
#endif
