/* Attention on AMX: sixteen queries go over all keys, three stages of work on three chunks of keys at a time.

   While the vector unit turns the scores of one chunk into weights, the matrix unit makes the scores of the chunk after the next and adds the
   values of the one before the last. Two apart, since what one unit stored reaches the other late; and in an order that keeps products that wait
   for each other apart, since the matrix unit takes them in the order of the program. Results stay in tile registers. The largest score of a row is
   taken from its first chunk and kept: float and bf16 have the same exponents, so weights up to 2^127 are as exact as those below 1. */

#include "attention.h"

#include <math.h>
#include <string.h>

enum { RING = 4 };

/* AddressSanitizer does not see what assembly reads and writes: it is asked. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
static void check(const void *at, int64_t stride) {
  for (int r = 0; r < ROWS; r++)
    if (__asan_region_is_poisoned((char *)at + r * stride, 64)) abort();
}
#else
#define check(at, stride) (void)0
#endif

/* Written out, since the compiler's own do not say that they read memory. */
#define LOAD(tile, from, stride) \
  check(from, stride); \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"((const void *)(from)), "r"((int64_t)(stride)) : "memory")
#define STORE(tile, to, stride) \
  check(to, stride); \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"((void *)(to)), "r"((int64_t)(stride)) : "memory")
#define ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::)
#define MULTIPLY(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)

void safelight_amx_begin(void) {
  struct __attribute__((packed)) {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } shape;
  memset(&shape, 0, sizeof shape);
  shape.palette = 1;
  for (int i = 0; i < 8; i++) {
    shape.bytes[i] = 64;
    shape.rows[i] = ROWS;
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(shape) : "memory");
}

void safelight_amx_end(void) { __asm__ volatile("tilerelease" ::); }

/* The tiles: 0 and up, results. 5: scores. 6: left factor. 7: right factor. */
#define ADD(number) \
  do { \
    LOAD(7, v + (number) * TILE, 64); \
    MULTIPLY(number, 6, 7); \
  } while (0)
#define SCORE(tile, half, part) \
  do { \
    LOAD(7, k + ((half) * depths + (part)) * TILE, 64); \
    MULTIPLY(tile, 6, 7); \
  } while (0)
#define WEIGH(row) \
  if (weighs) weigh(now + (row) * CHUNK, made + (row) * CHUNK, scale, _mm512_set1_ps(top[row]), low, high, summed ? sum + (row) * 16 : NULL)

static inline __attribute__((always_inline)) void weigh(const float *s, bf16 *p, __m512 scale, __m512 top, __mmask16 low, __mmask16 high, float *sum) {
  const __m512 a = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(s), scale, top), low);
  const __m512 b = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(s + 16), scale, top), high);
  if (sum) _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), _mm512_add_ps(a, b)));
  _mm512_store_si512(p, weights_of(a, b));
}

/* Find the largest of the scores that there are, row by row. */
static void tops(float *top, const float *scores, __m512 scale, __mmask16 low, __mmask16 high) {
  const __m512 least = _mm512_set1_ps(-INFINITY);
  for (int r = 0; r < ROWS; r++) {
    const __m512 a = _mm512_mask_mul_ps(least, low, _mm512_load_ps(scores + r * CHUNK), scale);
    const __m512 b = _mm512_mask_mul_ps(least, high, _mm512_load_ps(scores + r * CHUNK + 16), scale);
    top[r] = _mm512_reduce_max_ps(_mm512_max_ps(a, b));
  }
}

/* What the stages hand on. The sizes keep what is stored and what is read at the time in different places of a page. */
struct ring {
  float scores[ROWS * CHUNK];
  bf16 weights[ROWS * CHUNK];
};

/* Where a turn of the pipeline is: the one chunk is scored, and the one four before it added; the one two before is turned into weights. */
struct turn {
  const bf16 *q, *k, *v;
  struct ring *outer, *inner;
  const float *top;
  float *sum;
  __mmask16 low, high; /* keys of the inner chunk that there are */
};

/* depths: 32 values each; tiles: 16 columns each; summed: no column is left for the sums. */
static inline __attribute__((always_inline)) void take_turn(const struct turn *at, __m512 scale, const int depths, const int tiles, const int summed,
                                                            const int scores, const int weighs, const int adds) {
  const bf16 *q = at->q, *k = at->k, *v = at->v, *taken = at->outer->weights;
  const float *now = at->inner->scores, *top = at->top;
  bf16 *made = at->inner->weights;
  float *next = at->outer->scores, *sum = at->sum;
  const __mmask16 low = at->low, high = at->high;
  const int pair = tiles < 5; /* a register is left for scores of both halves of the chunk */
  if (scores) {
    ZERO(5);
    LOAD(6, q, depths * 64);
    SCORE(5, 0, 0);
  }
  WEIGH(0);
  WEIGH(1);
  if (scores && pair) {
    ZERO(4);
    SCORE(4, 1, 0);
  }
  WEIGH(2);
  WEIGH(3);
  if (adds) {
    LOAD(6, taken, 64);
    ADD(0);
  }
  WEIGH(4);
  WEIGH(5);
  if (adds) ADD(1);
  WEIGH(6);
  if (scores && depths > 1) {
    LOAD(6, q + 32, depths * 64);
    SCORE(5, 0, 1);
  }
  WEIGH(7);
  if (scores && depths > 1 && pair) SCORE(4, 1, 1);
  WEIGH(8);
  if (adds && tiles > 2) {
    LOAD(6, taken, 64);
    ADD(2);
    if (tiles > 3) ADD(3);
  }
  WEIGH(9);
  if (scores && depths > 2) {
    LOAD(6, q + 64, depths * 64);
    SCORE(5, 0, 2);
  }
  WEIGH(10);
  if (adds && tiles > 4) {
    LOAD(6, taken, 64);
    ADD(4);
  }
  WEIGH(11);
  WEIGH(12);
  if (scores) {
    STORE(5, next, 128);
  }
  WEIGH(13);
  if (scores && pair) {
    STORE(4, next + 16, 128);
  }
  if (scores && !pair) {
    ZERO(5);
    LOAD(6, q, depths * 64);
    SCORE(5, 1, 0);
  }
  WEIGH(14);
  if (scores && !pair) {
    LOAD(6, q + 32, depths * 64);
    SCORE(5, 1, 1);
    LOAD(6, q + 64, depths * 64);
    SCORE(5, 1, 2);
  }
  WEIGH(15);
  if (scores && !pair) {
    STORE(5, next + 16, 128);
  }
}

static inline __attribute__((always_inline)) void run(const struct head *head, const struct rows *rows, const int depths, const int tiles, const int summed) {
  __attribute__((aligned(4096))) struct ring ring[RING];
  __attribute__((aligned(64))) float sums[ROWS * 16];
  float top[ROWS];
  const int64_t chunks = (head->keys + CHUNK - 1) / CHUNK;
  const __m512 scale = _mm512_set1_ps(head->scale);
  struct turn at = {rows->q, head->k, head->v, ring, ring + 2, top, sums, 0xffff, 0xffff};
  memset(sums, 0, sizeof sums);
  ZERO(0);
  ZERO(1);
  if (tiles > 2) ZERO(2);
  if (tiles > 3) ZERO(3);
  if (tiles > 4) ZERO(4);
  for (int64_t i = 0; i < chunks + 4; i++) {
    const int scores = i < chunks, weighs = i >= 2 && i < chunks + 2, adds = i >= 4;
    at.outer = ring + i % RING;
    at.inner = ring + (i + 2) % RING;
    if (scores && adds) {
      at.low = at.high = 0xffff;
      take_turn(&at, scale, depths, tiles, summed, 1, 1, 1);
    } else {
      at.low = mask_of(head->keys, (i - 2) * CHUNK);
      at.high = mask_of(head->keys, (i - 2) * CHUNK + 16);
      if (i == 2) tops(top, at.inner->scores, scale, at.low, at.high);
      take_turn(&at, scale, depths, tiles, summed, scores, weighs, adds);
    }
    if (scores) at.k += 2 * depths * TILE;
    if (adds) at.v += tiles * TILE;
  }
  float *result = rows->result;
  STORE(0, result, tiles * 64);
  STORE(1, result + 16, tiles * 64);
  if (tiles > 2) {
    STORE(2, result + 32, tiles * 64);
  }
  if (tiles > 3) {
    STORE(3, result + 48, tiles * 64);
  }
  if (tiles > 4) {
    STORE(4, result + 64, tiles * 64);
  }
  for (int r = 0; r < ROWS; r++)
    rows->sum[r] = summed ? _mm512_reduce_add_ps(_mm512_load_ps(sums + r * 16)) * (1 / CUT) : result[r * tiles * 16 + head->width];
}

void safelight_rows_amx(const struct head *head, const struct rows *rows) {
  const int summed = head->width == head->columns;
  switch (head->columns / 16 * 2 + summed) {
    case 4: run(head, rows, 1, 2, 0); break;
    case 5: run(head, rows, 1, 2, 1); break;
    case 6: run(head, rows, 2, 3, 0); break;
    case 7: run(head, rows, 2, 3, 1); break;
    case 8: run(head, rows, 2, 4, 0); break;
    case 9: run(head, rows, 2, 4, 1); break;
    case 10: run(head, rows, 3, 5, 0); break;
    default: run(head, rows, 3, 5, 1); break;
  }
}
