/* Attention on AVX512_BF16, for processors without matrix tiles and for rows that leave their range. */

#include "attention.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 128 /* keys between two looks at the maximum */ };

/* to[16][16] += from[16][2 * pairs] by packed[pairs][16][2]; rows of `from` are `stride` values apart, those of `to` `apart`. */
static inline __attribute__((always_inline)) void product(float *to, int64_t apart, const bf16 *from, int64_t stride, const bf16 *packed, int64_t pairs) {
  __m512 sum[ROWS];
  for (int r = 0; r < ROWS; r++) sum[r] = _mm512_load_ps(to + r * apart);
  for (int64_t i = 0; i < pairs; i++) {
    const __m512bh right = (__m512bh)_mm512_load_si512(packed + i * 32);
    for (int r = 0; r < ROWS; r++) {
      int32_t both;
      memcpy(&both, from + r * stride + i * 2, sizeof both);
      sum[r] = _mm512_dpbf16_ps(sum[r], (__m512bh)_mm512_set1_epi32(both), right);
    }
  }
  for (int r = 0; r < ROWS; r++) _mm512_store_ps(to + r * apart, sum[r]);
}

void safelight_rows_avx512(const struct head *head, const struct rows *rows) {
  __attribute__((aligned(64))) float s[ROWS * BLOCK];
  __attribute__((aligned(64))) bf16 p[ROWS * BLOCK];
  float top[ROWS], *sums = rows->sum, *result = rows->result;
  const __m512 scale = _mm512_set1_ps(head->scale), least = _mm512_set1_ps(-INFINITY);
  memset(result, 0, sizeof(float) * ROWS * (size_t)head->columns);
  for (int r = 0; r < ROWS; r++) {
    top[r] = -INFINITY;
    sums[r] = 0;
  }
  for (int64_t first = 0; first < head->keys; first += BLOCK) {
    const int64_t left = (head->keys - first + CHUNK - 1) / CHUNK * CHUNK, many = left < BLOCK ? left : BLOCK;
    memset(s, 0, sizeof s);
    for (int64_t j = 0; j < many; j += 16) product(s + j, BLOCK, rows->q, head->depth, head->k + (first + j) * head->depth, head->depth / 2);
    for (int r = 0; r < ROWS; r++) {
      float *row = s + r * BLOCK;
      __m512 high = least;
      for (int64_t j = 0; j < many; j += 16) {
        const __m512 x = _mm512_mask_mul_ps(least, mask_of(head->keys, first + j), _mm512_load_ps(row + j), scale);
        _mm512_store_ps(row + j, x);
        high = _mm512_max_ps(high, x);
      }
      const float found = _mm512_reduce_max_ps(high);
      if (found > top[r]) {
        const float shrink = exp2f(top[r] - found);
        sums[r] *= shrink;
        for (int c = 0; c < head->columns; c += 16) {
          float *at = result + r * head->columns + c;
          _mm512_store_ps(at, _mm512_mul_ps(_mm512_load_ps(at), _mm512_set1_ps(shrink)));
        }
        top[r] = found;
      }
      const __m512 t = _mm512_set1_ps(top[r]);
      __m512 sum = _mm512_setzero_ps();
      for (int64_t j = 0; j < many; j += CHUNK) {
        const __m512 a = exp2_of(_mm512_sub_ps(_mm512_load_ps(row + j), t), mask_of(head->keys, first + j));
        const __m512 b = exp2_of(_mm512_sub_ps(_mm512_load_ps(row + j + 16), t), mask_of(head->keys, first + j + 16));
        sum = _mm512_add_ps(sum, _mm512_add_ps(a, b));
        _mm512_store_si512(p + r * BLOCK + j, weights_of(a, b));
      }
      sums[r] += _mm512_reduce_add_ps(sum) * (1 / CUT);
    }
    for (int c = 0; c < head->columns; c += 16)
      for (int64_t j = 0; j < many; j += CHUNK)
        product(result + c, head->columns, p + j, BLOCK, head->v + (first + j) * head->columns + (int64_t)c * CHUNK, 16);
  }
}
