/* Convolutions of 3 by 3 in float, channels last, by Winograd's F(4x4, 3x3): a tile of 6 by 6 values gives 4 by 4 results with 36 products a
   pair of channels instead of 144. Points 0, +-sqrt(2), +-sqrt(1/2) and infinity lose less than two bits (engine/DESIGN.md). Weights come as
   they are, half of a float wide where that holds them, and are transformed in each call: four times as many, they would fill the memory. */

#define _GNU_SOURCE
#include "kernels.h"

#include <immintrin.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
  LANES = 8,
  LINE = 64,            /* bytes of a line of a cache */
  STEP = 4,             /* results of a tile in each direction */
  SIDE = 6,             /* values of a tile in each direction */
  PLACES = SIDE * SIDE, /* products of a tile: so many multiplications of matrices */
  TAPS = 9,             /* weights of a pair of channels */
  ROWS = 6, FEW = 4,    /* tiles of a product, as it suits their number, and */
  COLUMNS = 2 * LANES,  /* outputs, a panel: their sums fill the registers */
  DEPTH = 320,          /* inputs added up in one go: a panel's weights for them stay in the first cache, */
  BLOCK = 72,           /* and so many tiles in the second */
  SHARED = 12 << 20,    /* values of a round of all threads: in each, weights are transformed and read once */
  PIECES = 12,          /* parts of a step for each thread, so that none waits long for another */
  ALONE = 3 << 17,      /* values of a round of one thread, where all weights stay in a cache */
  LIGHT = 1 << 20,      /* weights that do */
  FEW_PIXELS = 2048,    /* with fewer each thread transforms for itself what it multiplies by, while it waits for more: */
  GROUP = 2,            /* panels whose weights a thread transforms at once, */
  PARTS = 2,            /* at so many of all places, */
  SHALLOW = 48,         /* of so many inputs: they stay in the second cache */
  APART = 16            /* values between planes, so that they do not fall into one place of a cache */
};
#define ROOT 1.41421356237309505f
#define HALF_ROOT 0.70710678118654752f

struct round {
  int64_t first, many;  /* tiles */
  float *values, *sums; /* [inputs / depth][36][many][depth]; [36][many][columns], or of few pixels [panels][36][many][COLUMNS] */
};

struct job {
  const struct safelight_convolution *asked;
  int64_t high, wide;    /* tiles of a picture */
  int64_t panels;        /* of outputs */
  int64_t tiles, each;   /* of all pictures, and of a round */
  int64_t rows;          /* tiles of a product */
  int64_t depth, depths; /* inputs added up in one go, and how often */
  int few;               /* pixels */
  int64_t steps;         /* of a round: the products of one depth at the places of one row */
  int64_t prepared;      /* pieces in which the weights of one step are made ready, */
  int64_t pieces;        /* and of its products */
  int64_t values_apart, sums_apart, size; /* of planes, and of a round */
  int64_t panels_apart, tiles_apart; /* of sums */
  int64_t weights_apart; /* of places, */
  int64_t ready;         /* and for how many steps they are, at once */
  float *memory, *weights; /* rounds; transformed weights [ready][6][panels][depth][COLUMNS], or each thread's own of few pixels */
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
    float *to = round->values + c / job->depth * PLACES * job->values_apart + row * job->depth + c % job->depth;
    for (int i = 0; i < PLACES; i++) d[i] = from[i] ? _mm256_loadu_ps(from[i] + c) : _mm256_setzero_ps();
    for (int i = 0; i < SIDE; i++) spread(d + i * SIDE, 1, t + i * SIDE);
    for (int j = 0; j < SIDE; j++) {
      __m256 v[SIDE];
      spread(t + j, SIDE, v);
      for (int i = 0; i < SIDE; i++) _mm256_store_ps(to + (i * SIDE + j) * job->values_apart, v[i]);
    }
  }
}

/* Add what is added to a tile's results and write those that lie in the picture. */
static void give(const struct job *job, const struct round *round, int64_t row) {
  const struct safelight_convolution *a = job->asked;
  const int64_t tile = round->first + row;
  const int64_t batch = tile / (job->high * job->wide), top = tile / job->wide % job->high * STEP, left = tile % job->wide * STEP;
  const int64_t rows = a->height - top < STEP ? a->height - top : STEP, columns = a->width - left < STEP ? a->width - left : STEP;
  const int64_t corner = ((batch * a->height + top) * a->width + left) * a->outputs;
  for (int64_t c = 0; c < a->outputs; c += LANES) {
    __m256 m[PLACES], t[STEP * SIDE];
    const float *from = round->sums + c / COLUMNS * job->panels_apart + row * job->tiles_apart + c % COLUMNS;
    for (int i = 0; i < PLACES; i++) m[i] = _mm256_load_ps(from + i * job->sums_apart);
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

/* Three weights to their places, and three that lie `step` apart to one place. */
static inline __attribute__((always_inline)) void weigh(const __m256 *w, __m256 *to) {
  const __m256 w0 = w[0], w1 = _mm256_mul_ps(_mm256_set1_ps(ROOT / 6), w[1]), w2 = _mm256_mul_ps(_mm256_set1_ps(1 / 3.0f), w[2]);
  const __m256 a = _mm256_fmadd_ps(_mm256_set1_ps(1 / 6.0f), w0, w2), b = _mm256_fnmsub_ps(_mm256_set1_ps(2 / 3.0f), w0, w2);
  to[0] = w0;
  to[1] = _mm256_add_ps(a, w1);
  to[2] = _mm256_sub_ps(a, w1);
  to[3] = _mm256_fnmadd_ps(_mm256_set1_ps(2), w1, b);
  to[4] = _mm256_fmadd_ps(_mm256_set1_ps(2), w1, b);
  to[5] = w[2];
}
/* The points 0, r, -r, 1/r, -1/r and infinity, divided by what the inputs' side leaves out. */
static const float POINTS[SIDE][3] = {
  {1, 0, 0}, {1 / 6.0f, ROOT / 6, 1 / 3.0f}, {1 / 6.0f, -ROOT / 6, 1 / 3.0f}, {-2 / 3.0f, -ROOT / 3, -1 / 3.0f}, {-2 / 3.0f, ROOT / 3, -1 / 3.0f}, {0, 0, 1},
};
static inline __attribute__((always_inline)) __m256 weigh_one(const __m256 *w, int64_t step, const float *point) {
  const __m256 two = _mm256_fmadd_ps(_mm256_set1_ps(point[1]), w[step], _mm256_mul_ps(_mm256_set1_ps(point[0]), w[0]));
  return _mm256_fmadd_ps(_mm256_set1_ps(point[2]), w[2 * step], two);
}

/* Bytes of a panel's weights for so many inputs, and where they are. */
static int64_t bytes_of(const struct job *job, int64_t inputs) { return inputs * TAPS * COLUMNS * (job->asked->half ? 2 : 4); }
static const char *weights_at(const struct job *job, int64_t panel, int64_t input) {
  return (const char *)job->asked->weights + bytes_of(job, panel * job->asked->inputs + input);
}

/* Weights [many][TAPS][COLUMNS] of a panel to what values at the places of some rows are multiplied by: [place][many][COLUMNS], places `apart`. */
static inline __attribute__((always_inline)) void transform_as(int half, const char *from, int64_t many, int64_t first, int64_t rows, float *to, int64_t apart) {
  for (int64_t k = 0; k < many; k++)
    for (int side = 0; side < COLUMNS; side += LANES) {
      __m256 w[TAPS];
      for (int i = 0; i < TAPS; i++) {
        const int64_t at = (k * TAPS + i) * COLUMNS + side;
        w[i] = half ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 2 * at))) : _mm256_loadu_ps((const float *)(from + 4 * at));
      }
      for (int64_t row = 0; row < rows; row++) {
        __m256 t[3], v[SIDE];
        for (int j = 0; j < 3; j++) t[j] = weigh_one(w + j, 3, POINTS[first + row]);
        weigh(t, v);
        for (int j = 0; j < SIDE; j++) _mm256_store_ps(to + (row * SIDE + j) * apart + k * COLUMNS + side, v[j]);
      }
    }
}
static void transform(const struct job *job, int64_t panel, int64_t input, int64_t many, int64_t first, int64_t rows, float *to, int64_t apart) {
  const char *from = weights_at(job, panel, input);
  if (job->asked->half) transform_as(1, from, many, first, rows, to, apart);
  else transform_as(0, from, many, first, rows, to, apart);
}

/* to[rows][COLUMNS] = from[rows][depth] weights[depth][COLUMNS], added to what is there if `more`. Sums have names: of an array, compilers keep
   them in registers by chance. Functions of their own: within larger ones, registers would not do for the addresses. */
#define EACH(of) of(0) of(1) of(2) of(3) of(4) of(5)
#define BEGIN(r) __m256 a##r = _mm256_setzero_ps(), b##r = a##r;
#define TAKE(r) if (r < rows) a##r = _mm256_load_ps(to + r * apart), b##r = _mm256_load_ps(to + r * apart + LANES);
#define ADD(r) \
  if (r < rows) { \
    const __m256 x = _mm256_broadcast_ss(from + r * stride); \
    a##r = _mm256_fmadd_ps(x, a, a##r); \
    b##r = _mm256_fmadd_ps(x, b, b##r); \
  }
#define GIVE(r) if (r < rows) _mm256_store_ps(to + r * apart, a##r), _mm256_store_ps(to + r * apart + LANES, b##r);
static inline __attribute__((always_inline)) void product(int rows, float *to, int64_t apart, const float *from, int64_t stride, const float *weights, int64_t depth, int more) {
  EACH(BEGIN)
  if (more) { EACH(TAKE) }
  for (const float *end = from + depth; from < end; from++, weights += COLUMNS) {
    const __m256 a = _mm256_loadu_ps(weights), b = _mm256_loadu_ps(weights + LANES);
    EACH(ADD)
  }
  EACH(GIVE)
}
static __attribute__((noinline)) void product_rows(float *to, int64_t apart, const float *from, int64_t stride, const float *weights, int64_t depth, int more) {
  product(ROWS, to, apart, from, stride, weights, depth, more);
}
static __attribute__((noinline)) void product_few(float *to, int64_t apart, const float *from, int64_t stride, const float *weights, int64_t depth, int more) {
  product(FEW, to, apart, from, stride, weights, depth, more);
}

/* Inputs of one depth: the last may have fewer. */
static int64_t inputs_at(const struct job *job, int64_t depth) {
  const int64_t left = job->asked->inputs - depth * job->depth;
  return left < job->depth ? left : job->depth;
}

/* Add up the inputs of one depth for a panel at one place, for tiles from `tile` to `end`. What comes `ahead` is fetched, `lines` with each product;
   gives what comes then. */
static const char *multiply(const struct job *job, const struct round *round, int64_t panel, int64_t place, int64_t depth, int64_t tile, int64_t end,
                            const float *weights, const char *ahead, int64_t lines) {
  const int64_t many = inputs_at(job, depth);
  const float *values = round->values + (depth * PLACES + place) * job->values_apart;
  float *sums = round->sums + panel * job->panels_apart + place * job->sums_apart;
  void (*const run)(float *, int64_t, const float *, int64_t, const float *, int64_t, int) = job->rows == ROWS ? product_rows : product_few;
  for (; tile < end; tile += job->rows) {
    for (int64_t i = 0; i < lines; i++, ahead += LINE) _mm_prefetch(ahead, _MM_HINT_T1);
    run(sums + tile * job->tiles_apart, job->tiles_apart, values + tile * job->depth, job->depth, weights, many, depth > 0);
  }
  return ahead;
}

static float *ready_for(const struct job *job, int64_t step) { return job->weights + step % job->ready * SIDE * job->weights_apart; }

/* Make a panel's weights ready for a step. */
static void prepare(const struct job *job, int64_t step, int64_t panel) {
  const int64_t depth = step / SIDE;
  float *to = ready_for(job, step) + panel * job->depth * COLUMNS;
  transform(job, panel, depth * job->depth, inputs_at(job, depth), step % SIDE, 1, to, job->weights_apart);
}

/* Products of a step at one of its places, of part of the panels. */
static void multiply_ready(const struct job *job, const struct round *round, int64_t step, int64_t place, int64_t part, int64_t parts) {
  const int64_t from = part * job->panels / parts, end = (part + 1) * job->panels / parts;
  const float *weights = ready_for(job, step) + place * job->weights_apart;
  for (int64_t tile = 0; tile < round->many; tile += BLOCK)
    for (int64_t panel = from; panel < end; panel++)
      multiply(job, round, panel, step % SIDE * SIDE + place, step / SIDE, tile, tile + BLOCK < round->many ? tile + BLOCK : round->many,
               weights + panel * job->depth * COLUMNS, NULL, 0);
}

/* Products at the places of one part, of a group of panels from `first` on. weights: room for those of one depth, transformed; the next depth's
   are on their way meanwhile. */
static void multiply_few(const struct job *job, const struct round *round, int64_t first, int64_t part, float *weights) {
  const int64_t places = PLACES / PARTS, apart = job->depth * COLUMNS;
  const int64_t panels = job->panels - first < GROUP ? job->panels - first : GROUP;
  const int64_t products = places * ((round->many + job->rows - 1) / job->rows);
  for (int64_t depth = 0; depth < job->depths; depth++) {
    const int64_t lines = depth + 1 < job->depths ? (bytes_of(job, inputs_at(job, depth + 1)) / LINE + products - 1) / products : 0;
    const char *ahead[GROUP];
    for (int64_t n = 0; n < panels; n++) {
      transform(job, first + n, depth * job->depth, inputs_at(job, depth), part * (SIDE / PARTS), SIDE / PARTS, weights + n * places * apart, apart);
      ahead[n] = weights_at(job, first + n, (depth + 1) * job->depth);
    }
    for (int64_t place = 0; place < places; place++)
      for (int64_t n = 0; n < panels; n++)
        ahead[n] = multiply(job, round, first + n, part * places + place, depth, 0, round->many, weights + (n * places + place) * apart, ahead[n], lines);
  }
}

static struct round round_at(const struct job *job, int64_t first, float *memory) {
  const int64_t many = job->tiles - first < job->each ? job->tiles - first : job->each;
  return (struct round){first, many, memory, memory + job->depths * PLACES * job->values_apart};
}

static void *rounds_alone(void *argument) {
  struct job *job = argument;
  const int64_t prepared = job->steps * job->panels;
  float *memory = job->memory + atomic_fetch_add(&job->threads, 1) * job->size;
  int64_t item;
  while ((item = atomic_fetch_add(&job->next, 1) - prepared) * job->each < job->tiles) {
    if (item < 0) {
      prepare(job, (item + prepared) / job->panels, (item + prepared) % job->panels);
      atomic_fetch_add_explicit(&job->done, 1, memory_order_release);
      continue;
    }
    safelight_wait(&job->done, prepared);
    const struct round round = round_at(job, item * job->each, memory);
    for (int64_t tile = 0; tile < round.many; tile++) take(job, &round, tile);
    for (int64_t step = 0; step < job->steps; step++)
      for (int64_t place = 0; place < SIDE; place++) multiply_ready(job, &round, step, place, 0, 1);
    for (int64_t tile = 0; tile < round.many; tile++) give(job, &round, tile);
  }
  return NULL;
}

/* Rounds that all threads share. Work is numbered in the order in which it is taken: of each round the tiles that are spread and the first step's
   weights, then the products of each step and the next one's weights, then the tiles that are joined. Each of these begins when all that was
   numbered before it is done. */
static void *rounds_together(void *argument) {
  struct job *job = argument;
  float *own = job->weights + atomic_fetch_add(&job->threads, 1) * (PLACES / PARTS * GROUP * COLUMNS) * job->depth;
  const int64_t begin = job->each + job->prepared, step = job->prepared + job->pieces, end = begin + job->steps * step, all = end + job->each;
  const int64_t parts = job->pieces / SIDE, rounds = (job->tiles + job->each - 1) / job->each;
  int64_t item;
  while ((item = atomic_fetch_add(&job->next, 1)) < rounds * all) {
    const struct round round = round_at(job, item / all * job->each, job->memory);
    int64_t at = item % all;
    const int64_t number = at < begin ? -1 : (at - begin) / step; /* of the step */
    if (at >= end) at -= end;
    else if (at >= begin) at = (at - begin) % step;
    safelight_wait(&job->done, item - at);
    if (number >= job->steps) {
      if (at < round.many) give(job, &round, at);
    } else if (number < 0 && at < job->each) {
      if (at < round.many) take(job, &round, at);
    } else if (number < 0) prepare(job, 0, at - job->each);
    else if (at < job->prepared) {
      if (number + 1 < job->steps) prepare(job, number + 1, at);
    } else {
      const int64_t piece = at - job->prepared;
      if (job->few) multiply_few(job, &round, piece / PARTS * GROUP, piece % PARTS, own);
      else multiply_ready(job, &round, number, piece / parts, piece % parts, parts);
    }
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
  struct job job = {.asked = a, .high = (a->height + STEP - 1) / STEP, .wide = (a->width + STEP - 1) / STEP, .few = a->batches * a->height * a->width < FEW_PIXELS};
  job.tiles = a->batches * job.high * job.wide;
  job.panels = (a->outputs + COLUMNS - 1) / COLUMNS;
  const int64_t columns = job.panels * COLUMNS;
  const int alone = !job.few && PLACES * a->inputs * columns <= LIGHT;
  const int64_t most = (alone ? ALONE : SHARED) / (PLACES * (a->inputs + columns)), least = alone ? a->threads : 1;
  int64_t rounds = most > 0 ? (job.tiles + most - 1) / most : job.tiles;
  rounds = (rounds + least - 1) / least * least;
  job.each = (job.tiles + rounds - 1) / rounds;
  const int64_t by_rows = (job.each + ROWS - 1) / ROWS * ROWS, by_few = (job.each + FEW - 1) / FEW * FEW;
  job.rows = 10 * by_rows > 11 * by_few ? FEW : ROWS; /* a product of few rows takes a tenth longer for each */
  job.each = (job.each + job.rows - 1) / job.rows * job.rows;
  const int64_t deepest = job.few ? SHALLOW : DEPTH, depths = (a->inputs + deepest - 1) / deepest;
  job.depth = ((a->inputs + depths - 1) / depths + LANES - 1) / LANES * LANES;
  job.depths = (a->inputs + job.depth - 1) / job.depth;
  job.steps = job.few ? 1 : job.depths * SIDE;
  job.prepared = job.few ? 0 : job.panels;
  job.ready = alone ? job.steps : 2;
  const int64_t wanted = (PIECES * (int64_t)a->threads + SIDE - 1) / SIDE;
  job.pieces = job.few ? (job.panels + GROUP - 1) / GROUP * PARTS : SIDE * (wanted < job.panels ? wanted : job.panels);
  job.values_apart = job.each * job.depth + APART;
  job.tiles_apart = job.few ? COLUMNS : columns; /* what a thread adds up lies together, or what it writes in the end */
  job.sums_apart = job.each * job.tiles_apart + APART;
  job.panels_apart = job.few ? PLACES * job.sums_apart : COLUMNS;
  job.weights_apart = job.depth * columns + APART;
  job.size = PLACES * (job.depths * job.values_apart + (job.few ? job.panels : 1) * job.sums_apart);
  const int64_t weights = job.few ? a->threads * (PLACES / PARTS * GROUP * COLUMNS) * job.depth : job.ready * SIDE * job.weights_apart;
  struct block *block = borrow((size_t)(job.size * least + weights));
  if (!block) return 2;
  job.memory = block->values;
  job.weights = job.memory + job.size * least;
  safelight_together(alone ? rounds_alone : rounds_together, &job, a->threads, a->cpus, a->cpus_size);
  free(atomic_exchange(&kept, block));
  return 0;
}
