/* Convolutions of 3 by 3 in float, channels last, by Winograd's F(4x4, 3x3): a tile of 6 by 6 values gives 4 by 4 results with 36 products a
   pair of channels instead of 144. Points 0, +-sqrt(2), +-sqrt(1/2) and infinity lose less than two bits (engine/DESIGN.md). */

#define _GNU_SOURCE
#include "kernels.h"

#include <immintrin.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
  LANES = 8,
  STEP = 4,              /* results of a tile in each direction */
  SIDE = 6,              /* values of a tile in each direction */
  PLACES = SIDE * SIDE,  /* products of a tile: so many multiplications of matrices */
  ROWS = 6,              /* tiles and */
  COLUMNS = 2 * LANES,   /* outputs whose sums fill the registers */
  DEPTH = 320,           /* inputs added up in one go: COLUMNS times as many weights stay in the first cache, */
  BLOCK = 96,            /* and so many tiles in the second */
  SHARED = 6 << 20,      /* values of a round of all threads: what the third cache holds, so that weights are read once for many tiles */
  ALONE = 3 << 17,       /* values of a round of one thread, where all weights stay in a cache */
  LIGHT = 1 << 20,       /* weights that do */
  APART = 16             /* values between planes, so that they do not fall into one place of a cache */
};
#define ROOT 1.41421356237309505f
#define HALF_ROOT 0.70710678118654752f

struct round {
  int64_t first, many;  /* tiles */
  float *values, *sums; /* [36][many][inputs] and [36][many][columns] */
};

struct job {
  const struct safelight_convolution *asked;
  int64_t high, wide;     /* tiles of a picture */
  int64_t columns, parts; /* outputs, up to whole COLUMNS, and how many pieces they are dealt out in */
  int64_t tiles, each;    /* of all pictures, and of a round */
  int64_t values_apart, sums_apart, size; /* of planes, and of a round */
  float *memory;
  atomic_llong next, done, threads;
};

/* Six values to their places, and six places to four results. */
static inline __attribute__((always_inline)) void spread(const __m256 *d, int64_t step, __m256 *to) {
  const __m256 d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  const __m256 a = _mm256_fnmadd_ps(_mm256_set1_ps(0.5f), d2, d4), b = _mm256_fmsub_ps(_mm256_set1_ps(ROOT), d3, _mm256_mul_ps(_mm256_set1_ps(HALF_ROOT), d1));
  const __m256 e = _mm256_fnmadd_ps(_mm256_set1_ps(2), d2, d4), f = _mm256_fmsub_ps(_mm256_set1_ps(HALF_ROOT), d3, _mm256_mul_ps(_mm256_set1_ps(ROOT), d1));
  to[0] = _mm256_fnmadd_ps(_mm256_set1_ps(2.5f), d2, _mm256_add_ps(d0, d4));
  to[1] = _mm256_add_ps(a, b);
  to[2] = _mm256_sub_ps(a, b);
  to[3] = _mm256_add_ps(e, f);
  to[4] = _mm256_sub_ps(e, f);
  to[5] = _mm256_fnmadd_ps(_mm256_set1_ps(2.5f), d3, _mm256_add_ps(d1, d5));
}

static inline __attribute__((always_inline)) void gather(const __m256 *m, int64_t step, __m256 *to) {
  const __m256 m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
  const __m256 a = _mm256_add_ps(m1, m2), b = _mm256_sub_ps(m1, m2), e = _mm256_add_ps(m3, m4), f = _mm256_sub_ps(m3, m4);
  to[0] = _mm256_add_ps(m[0], _mm256_add_ps(a, e));
  to[1] = _mm256_fmadd_ps(_mm256_set1_ps(ROOT), b, _mm256_mul_ps(_mm256_set1_ps(HALF_ROOT), f));
  to[2] = _mm256_fmadd_ps(_mm256_set1_ps(2), a, _mm256_mul_ps(_mm256_set1_ps(0.5f), e));
  to[3] = _mm256_fmadd_ps(_mm256_set1_ps(2 * ROOT), b, _mm256_fmadd_ps(_mm256_set1_ps(0.5f * HALF_ROOT), f, m[5 * step]));
}

/* Write a tile's inputs to its row in each plane. */
static void take(const struct job *job, const struct round *round, int64_t row) {
  const struct safelight_convolution *a = job->asked;
  float *to = round->values + row * a->inputs;
  const int64_t tile = round->first + row;
  const int64_t batch = tile / (job->high * job->wide), top = tile / job->wide % job->high * STEP - 1, left = tile % job->wide * STEP - 1;
  const int twice = a->doubled;
  const float *from[PLACES];
  __m256 d[PLACES], t[PLACES];
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      const int64_t y = top + i, x = left + j;
      const int inside = y >= 0 && y < a->height && x >= 0 && x < a->width;
      from[i * SIDE + j] = inside ? a->x + ((batch * (a->height >> twice) + (y >> twice)) * (a->width >> twice) + (x >> twice)) * a->inputs : NULL;
    }
  for (int64_t c = 0; c < a->inputs; c += LANES) {
    for (int i = 0; i < PLACES; i++) d[i] = from[i] ? _mm256_loadu_ps(from[i] + c) : _mm256_setzero_ps();
    for (int i = 0; i < SIDE; i++) spread(d + i * SIDE, 1, t + i * SIDE);
    for (int j = 0; j < SIDE; j++) {
      __m256 v[SIDE];
      spread(t + j, SIDE, v);
      for (int i = 0; i < SIDE; i++) _mm256_store_ps(to + (i * SIDE + j) * job->values_apart + c, v[i]);
    }
  }
}

/* Add what is added to a tile's results and write those that lie in the picture. */
static void give(const struct job *job, const struct round *round, int64_t row) {
  const struct safelight_convolution *a = job->asked;
  const float *from = round->sums + row * job->columns;
  const int64_t tile = round->first + row;
  const int64_t batch = tile / (job->high * job->wide), top = tile / job->wide % job->high * STEP, left = tile % job->wide * STEP;
  const int64_t rows = a->height - top < STEP ? a->height - top : STEP, columns = a->width - left < STEP ? a->width - left : STEP;
  const int64_t corner = ((batch * a->height + top) * a->width + left) * a->outputs;
  for (int64_t c = 0; c < a->outputs; c += LANES) {
    __m256 m[PLACES], t[STEP * SIDE];
    for (int i = 0; i < PLACES; i++) m[i] = _mm256_load_ps(from + i * job->sums_apart + c);
    for (int j = 0; j < SIDE; j++) {
      __m256 v[STEP];
      gather(m + j, SIDE, v);
      for (int i = 0; i < STEP; i++) t[i * SIDE + j] = v[i];
    }
    const __m256 bias = _mm256_loadu_ps(a->bias + batch * a->outputs + c);
    for (int64_t i = 0; i < rows; i++) {
      __m256 v[STEP];
      gather(t + i * SIDE, 1, v);
      for (int64_t j = 0; j < columns; j++) {
        const int64_t at = corner + (i * a->width + j) * a->outputs + c;
        const __m256 sum = _mm256_add_ps(v[j], bias);
        _mm256_storeu_ps(a->y + at, a->more ? _mm256_add_ps(sum, _mm256_loadu_ps(a->more + at)) : sum);
      }
    }
  }
}

/* to[ROWS][COLUMNS] = from[ROWS][depth] weights[depth][COLUMNS], added to what is there if `more`. */
static inline __attribute__((always_inline)) void product(float *to, int64_t apart, const float *from, int64_t stride, const float *weights, int64_t depth, int more) {
  __m256 s[ROWS][2];
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < 2; v++) s[r][v] = more ? _mm256_load_ps(to + r * apart + v * LANES) : _mm256_setzero_ps();
  for (int64_t k = 0; k < depth; k++) {
    const __m256 a = _mm256_loadu_ps(weights + k * COLUMNS), b = _mm256_loadu_ps(weights + k * COLUMNS + LANES);
    for (int r = 0; r < ROWS; r++) {
      const __m256 x = _mm256_broadcast_ss(from + r * stride + k);
      s[r][0] = _mm256_fmadd_ps(x, a, s[r][0]);
      s[r][1] = _mm256_fmadd_ps(x, b, s[r][1]);
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < 2; v++) _mm256_store_ps(to + r * apart + v * LANES, s[r][v]);
}

/* Sum up over all inputs for a part of the outputs at one place. */
static void multiply(const struct job *job, const struct round *round, int64_t place, int64_t part, int64_t parts) {
  const int64_t inputs = job->asked->inputs, panels = job->columns / COLUMNS;
  const int64_t from = part * panels / parts * COLUMNS, end = (part + 1) * panels / parts * COLUMNS;
  const float *values = round->values + place * job->values_apart;
  float *sums = round->sums + place * job->sums_apart;
  for (int64_t c = 0; c < inputs; c += DEPTH) {
    const int64_t depth = inputs - c < DEPTH ? inputs - c : DEPTH;
    for (int64_t b = 0; b < round->many; b += BLOCK)
      for (int64_t n = from; n < end; n += COLUMNS) {
        const float *weights = job->asked->weights + (place * job->columns + n) * inputs + c * COLUMNS;
        for (int64_t t = b; t < b + BLOCK && t < round->many; t += ROWS)
          product(sums + t * job->columns + n, job->columns, values + t * inputs + c, inputs, weights, depth, c > 0);
      }
  }
}

static struct round round_at(const struct job *job, int64_t first, float *memory) {
  const int64_t many = job->tiles - first < job->each ? job->tiles - first : job->each;
  return (struct round){first, many, memory, memory + PLACES * job->values_apart};
}

static void *rounds_alone(void *argument) {
  struct job *job = argument;
  float *memory = job->memory + atomic_fetch_add(&job->threads, 1) * job->size;
  int64_t item;
  while ((item = atomic_fetch_add(&job->next, 1)) * job->each < job->tiles) {
    const struct round round = round_at(job, item * job->each, memory);
    for (int64_t tile = 0; tile < round.many; tile++) take(job, &round, tile);
    for (int64_t place = 0; place < PLACES; place++) multiply(job, &round, place, 0, 1);
    for (int64_t tile = 0; tile < round.many; tile++) give(job, &round, tile);
  }
  return NULL;
}

/* Rounds that all threads share. Work is numbered in the order in which it is taken: of each round the tiles that are spread, then the products,
   then the tiles that are joined. Each of these three begins when all that was numbered before it is done. */
static void *rounds_together(void *argument) {
  struct job *job = argument;
  const int64_t products = PLACES * job->parts, all = 2 * job->each + products, rounds = (job->tiles + job->each - 1) / job->each;
  int64_t item;
  while ((item = atomic_fetch_add(&job->next, 1)) < rounds * all) {
    const struct round round = round_at(job, item / all * job->each, job->memory);
    const int64_t place = item % all, product = place - job->each, last = product - products;
    const int64_t begin = item - (last >= 0 ? last : product >= 0 ? product : place);
    safelight_wait(&job->done, begin);
    if (last >= 0) {
      if (last < round.many) give(job, &round, last);
    } else if (product >= 0) multiply(job, &round, product / job->parts, product % job->parts, job->parts);
    else if (place < round.many) take(job, &round, place);
    atomic_fetch_add_explicit(&job->done, 1, memory_order_release);
  }
  return NULL;
}

/* One block of memory is kept for the next call: fresh pages would cost as much as a small convolution. */
struct block {
  size_t size;
  _Alignas(64) float values[];
};
static _Atomic(struct block *) kept;

static struct block *borrow(size_t values) {
  struct block *block = atomic_exchange(&kept, NULL);
  if (block && block->size >= values) return block;
  free(block);
  block = aligned_alloc(64, (sizeof *block + values * sizeof(float) + 63) / 64 * 64);
  if (!block) return NULL;
  memset(block->values, 0, values * sizeof(float)); /* rows of no tile are multiplied too: with numbers, whatever they are */
  block->size = values;
  return block;
}

int safelight_convolution(const struct safelight_convolution *a) {
  if (a->inputs < LANES || a->inputs % LANES || a->outputs < LANES || a->outputs % LANES || a->height < 1 || a->width < 1 || a->threads < 1) return 1;
  if (a->doubled && ((a->height | a->width) & 1)) return 1;
  struct job job = {.asked = a, .high = (a->height + STEP - 1) / STEP, .wide = (a->width + STEP - 1) / STEP};
  job.tiles = a->batches * job.high * job.wide;
  job.columns = (a->outputs + COLUMNS - 1) / COLUMNS * COLUMNS;
  job.parts = (4 * (int64_t)a->threads + PLACES - 1) / PLACES;
  if (job.parts > job.columns / COLUMNS) job.parts = job.columns / COLUMNS;
  const int alone = PLACES * a->inputs * job.columns <= LIGHT;
  const int64_t most = (alone ? ALONE : SHARED) / (PLACES * (a->inputs + job.columns)), least = alone ? a->threads : 1;
  int64_t rounds = most > 0 ? (job.tiles + most - 1) / most : job.tiles;
  rounds = (rounds + least - 1) / least * least;
  job.each = ((job.tiles + rounds - 1) / rounds + ROWS - 1) / ROWS * ROWS;
  job.values_apart = job.each * a->inputs + APART;
  job.sums_apart = job.each * job.columns + APART;
  job.size = PLACES * (job.values_apart + job.sums_apart);
  struct block *block = borrow((size_t)(job.size * least));
  if (!block) return 2;
  job.memory = block->values;
  safelight_together(alone ? rounds_alone : rounds_together, &job, a->threads, a->cpus, a->cpus_size);
  free(atomic_exchange(&kept, block));
  return 0;
}
