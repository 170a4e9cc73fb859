/* What the parts of the attention kernel share: one head as matrix units read it, and the exponential. */
#ifndef SAFELIGHT_ATTENTION_H
#define SAFELIGHT_ATTENTION_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

typedef uint16_t bf16; /* the upper half of a float */

enum {
  ROWS = 16,        /* queries worked on together: the rows of a tile */
  CHUNK = 32,       /* keys worked on together: the depth of a tile in bf16 */
  WIDEST = 160,     /* values of a head */
  TILES_WIDEST = 80, /* values of a head that fit tile registers */
  TILE = ROWS * 32  /* bf16 in a tile: 1 KiB */
};

/* One head, packed. Depth is the width in steps of 32, columns in steps of 16; what was added is zero, and so are keys up to a whole chunk.
   k: [keys / 16][depth / 32][16 pairs][16 keys][2]; v: [keys / 32][columns / 16][16 pairs][16 columns][2], where pair i has the keys i and
   i + 16 of the chunk: the order in which `weights_of` joins two vectors. The first column of v that was added, if any, is 1 where a key is. */
struct head {
  const bf16 *k, *v;
  int64_t keys;
  int depth, columns, width;
  float scale; /* with log2(e) in it: exp(x) = 2^(x log2 e) */
};

/* Sixteen queries, and what comes of them before it is divided by the sums. */
struct rows {
  bf16 *q;       /* [16][depth] */
  float *result; /* [16][columns] */
  float *sum;    /* [16] */
};

/* Compute by means that never leave float's range: the largest score is followed, and the result scaled as it grows. */
void safelight_rows_avx512(const struct head *head, const struct rows *rows);

/* Compute on matrix tiles, for heads of 17 to TILES_WIDEST values. A sum that is not a positive number below 1e38 says that a row left float's
   range: it is to be done by the other one. */
void safelight_rows_amx(const struct head *head, const struct rows *rows);
void safelight_amx_begin(void);
void safelight_amx_end(void);

/* Which of the sixteen keys from `first` on there are. */
static inline __attribute__((always_inline)) __mmask16 mask_of(int64_t keys, int64_t first) {
  const int64_t left = keys - first;
  return left >= 16 ? (__mmask16)0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
}

/* Cutting off a float's lower half takes 0.28 % of it on average over a factor of two (2^-8 / (2 ln 2)); so much is added before. */
#define CUT 1.002818f

/* 2^x CUT for any x, 0 in lanes that `keep` leaves out. The parabola is within 0.18 % of 2^f on [0, 1), less than half a step of bf16, and right
   on average; scalef floors its exponent by itself, and gives 0 for what is too small. */
static inline __attribute__((always_inline)) __m512 exp2_of(__m512 x, __mmask16 keep) {
  const __m512 f = _mm512_reduce_ps(x, 1); /* x - floor(x) */
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(CUT * 0.33718948f), f, _mm512_set1_ps(CUT * 0.65763624f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(CUT * 1.00172476f));
  return _mm512_maskz_scalef_ps(keep, p, x);
}

/* Join two vectors as bf16: pair i has lane i of both. */
static inline __attribute__((always_inline)) __m512i weights_of(__m512 a, __m512 b) {
  return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(_mm512_castps_si512(a), 16), _mm512_castps_si512(b));
}

#endif
