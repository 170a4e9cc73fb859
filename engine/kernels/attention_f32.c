/* Attention in float on AVX2. Vectors hold queries, so what is asked of all keys of a query (largest, sum) is asked of whole vectors, and keys and
   values are read as they come, a number at a time. A thread takes some queries of a head over all keys, in parts that stay in its caches. */

#define _GNU_SOURCE
#include "kernels.h"

#include <immintrin.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
  LANES = 8,
  QUERIES = 2 * LANES, /* a tile: results for them fill the registers, */
  ROWS = 6,            /* of so many keys, */
  FEW = 5, FEWER = 4,  /* or values of a head: what divides their number */
  MOST = 24,           /* tiles of a piece of work: they share what is read of keys and values; and */
  STAY = 1280,          /* values of all their queries that stay in the second cache */
  KEYS = 96,           /* keys of a part */
  WIDEST = 160         /* values of a head */
};

struct tile {
  float *q, *result; /* [width][QUERIES]: scaled by log2(e) too, since exp(x) = 2^(x log2 e); and what comes of it */
  __m256 most[2], sum[2];
};

struct job {
  const struct safelight_attention *asked;
  int64_t tiles, pieces; /* of a piece, and of a head */
  atomic_llong next, failed;
};

/* 2^x for x <= 0; what is not a number stays none. The polynomial gives (2^r - 1) / r for |r| <= 1/2, interpolated in Chebyshev's points. */
static inline __attribute__((always_inline)) __m256 exp2_of(__m256 x) {
  x = _mm256_max_ps(_mm256_set1_ps(-126), x);
  const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(x, n);
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0.000154531634f), r, _mm256_set1_ps(0.00133908633f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.00961808302f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.0555035695f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.240226507f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.693147182f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
  return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
}

/* Turn a square of 8 by 8 numbers. */
static inline __attribute__((always_inline)) void turn(__m256 *x) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 4) {
    const __m256 a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
    const __m256 c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]), d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; i++) {
    x[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
    x[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
  }
}

static float *at(const struct safelight_tensor *t, int64_t batch, int64_t row, int64_t head) {
  return (float *)t->data + batch * t->batch + row * t->row + head * t->head;
}

/* to[rows][QUERIES] = to scaled + from weights[depth][QUERIES], where from[row][depth] has these strides. */
static inline __attribute__((always_inline)) void product(int rows, float *to, const __m256 *scale, const float *from, int64_t row, int64_t step, const float *weights, int64_t depth) {
  __m256 s[ROWS][2];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < 2; v++) s[r][v] = scale ? _mm256_mul_ps(scale[v], _mm256_load_ps(to + r * QUERIES + v * LANES)) : _mm256_setzero_ps();
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; k++) {
    const __m256 a = _mm256_load_ps(weights + k * QUERIES), b = _mm256_load_ps(weights + k * QUERIES + LANES);
    for (int r = 0; r < rows; r++) {
      const __m256 x = _mm256_broadcast_ss(from + r * row + k * step);
      s[r][0] = _mm256_fmadd_ps(x, a, s[r][0]);
      s[r][1] = _mm256_fmadd_ps(x, b, s[r][1]);
    }
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < 2; v++) _mm256_store_ps(to + r * QUERIES + v * LANES, s[r][v]);
}

/* Take the keys of a part into what was found for a tile. k: [ROWS * n][width], v: [keys][width], scores: room for [ROWS * n][QUERIES]. */
static void attend(struct tile *tile, const float *k, const float *v, int64_t keys, int64_t width, float *scores) {
  __m256 most[2] = {tile->most[0], tile->most[1]}, sum[2], shrink[2];
  for (int64_t i = 0; i < keys; i += ROWS) product(ROWS, scores + i * QUERIES, NULL, k + i * width, width, 1, tile->q, width);
  for (int64_t i = 0; i < keys; i++)
    for (int j = 0; j < 2; j++) most[j] = _mm256_max_ps(most[j], _mm256_load_ps(scores + i * QUERIES + j * LANES));
  for (int j = 0; j < 2; j++) {
    shrink[j] = exp2_of(_mm256_sub_ps(tile->most[j], most[j]));
    sum[j] = _mm256_mul_ps(tile->sum[j], shrink[j]);
    tile->most[j] = most[j];
  }
  for (int64_t i = 0; i < keys; i++)
    for (int j = 0; j < 2; j++) {
      float *score = scores + i * QUERIES + j * LANES;
      const __m256 weight = exp2_of(_mm256_sub_ps(_mm256_load_ps(score), most[j]));
      _mm256_store_ps(score, weight);
      sum[j] = _mm256_add_ps(sum[j], weight);
    }
  for (int j = 0; j < 2; j++) tile->sum[j] = sum[j];
  if (width % FEW == 0)
    for (int64_t c = 0; c < width; c += FEW) product(FEW, tile->result + c * QUERIES, shrink, v + c, 1, width, scores, keys);
  else
    for (int64_t c = 0; c < width; c += FEWER) product(FEWER, tile->result + c * QUERIES, shrink, v + c, 1, width, scores, keys);
}

static void begin(struct tile *tile, const struct safelight_attention *a, int64_t batch, int64_t head, int64_t first, int64_t many) {
  const __m256 scale = _mm256_set1_ps(a->scale * 1.44269504f);
  for (int64_t c = 0; c < a->width; c += LANES)
    for (int64_t i = 0; i < QUERIES; i += LANES) {
      __m256 x[LANES];
      for (int64_t r = 0; r < LANES; r++) x[r] = i + r < many ? _mm256_loadu_ps(at(&a->q, batch, first + i + r, head) + c) : _mm256_setzero_ps();
      turn(x);
      for (int64_t r = 0; r < LANES; r++) _mm256_store_ps(tile->q + (c + r) * QUERIES + i, _mm256_mul_ps(x[r], scale));
    }
  memset(tile->result, 0, (size_t)(a->width * QUERIES) * sizeof(float));
  for (int j = 0; j < 2; j++) {
    tile->most[j] = _mm256_set1_ps(-1e38f);
    tile->sum[j] = _mm256_setzero_ps();
  }
}

static void finish(const struct tile *tile, const struct safelight_attention *a, int64_t batch, int64_t head, int64_t first, int64_t many) {
  for (int64_t c = 0; c < a->width; c += LANES)
    for (int64_t i = 0; i < many; i += LANES) {
      __m256 x[LANES];
      for (int64_t r = 0; r < LANES; r++) x[r] = _mm256_div_ps(_mm256_load_ps(tile->result + (c + r) * QUERIES + i), tile->sum[i / LANES]);
      turn(x);
      for (int64_t r = 0; r < LANES && i + r < many; r++) _mm256_storeu_ps(at(&a->o, batch, first + i + r, head) + c, x[r]);
    }
}

static void pack(float *to, const struct safelight_tensor *from, int64_t batch, int64_t head, int64_t first, int64_t many, int64_t width) {
  for (int64_t i = 0; i < many; i++, to += width) memcpy(to, at(from, batch, first + i, head), (size_t)width * sizeof(float));
}

static void *work(void *argument) {
  struct job *job = argument;
  const struct safelight_attention *a = job->asked;
  const int64_t width = a->width, whole = a->batches * a->heads;
  float *memory = aligned_alloc(64, (size_t)(2 * (job->tiles * QUERIES + KEYS) * width + KEYS * QUERIES) * sizeof(float));
  if (!memory) {
    atomic_store(&job->failed, 1);
    return NULL;
  }
  float *k = memory, *v = k + KEYS * width, *scores = v + KEYS * width, *queries = scores + KEYS * QUERIES;
  memset(k, 0, (size_t)(KEYS * width) * sizeof(float)); /* rows of no key are multiplied too: with numbers, whatever they are */
  struct tile tiles[MOST];
  for (int64_t i = 0; i < job->tiles; i++) {
    tiles[i].q = queries + 2 * i * QUERIES * width;
    tiles[i].result = tiles[i].q + QUERIES * width;
  }
  int64_t item;
  while ((item = atomic_fetch_add(&job->next, 1)) < whole * job->pieces) {
    const int64_t batch = item / job->pieces / a->heads, head = item / job->pieces % a->heads, first = item % job->pieces * job->tiles * QUERIES;
    const int64_t left = a->queries - first, many = left < job->tiles * QUERIES ? left : job->tiles * QUERIES;
    for (int64_t i = 0; i < many; i += QUERIES) begin(&tiles[i / QUERIES], a, batch, head, first + i, many - i);
    for (int64_t key = 0; key < a->keys; key += KEYS) {
      const int64_t keys = a->keys - key < KEYS ? a->keys - key : KEYS;
      pack(k, &a->k, batch, head, key, keys, width);
      pack(v, &a->v, batch, head, key, keys, width);
      for (int64_t i = 0; i < many; i += QUERIES) attend(&tiles[i / QUERIES], k, v, keys, width, scores);
    }
    for (int64_t i = 0; i < many; i += QUERIES) finish(&tiles[i / QUERIES], a, batch, head, first + i, many - i < QUERIES ? many - i : QUERIES);
  }
  free(memory);
  return NULL;
}

int safelight_attention_f32(const struct safelight_attention *a) {
  if (a->width < LANES || a->width % LANES || a->width > WIDEST || a->keys < 1 || a->queries < 1 || a->threads < 1) return 1;
  struct job job = {.asked = a, .tiles = STAY / a->width < MOST ? STAY / a->width : MOST};
  job.pieces = (a->queries + job.tiles * QUERIES - 1) / (job.tiles * QUERIES);
  safelight_together(work, &job, a->threads, a->cpus, a->cpus_size);
  return atomic_load(&job.failed) ? 2 : 0;
}
