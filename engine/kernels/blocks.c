/* Attention over a whole tensor: heads and queries are dealt out to threads, each packs what it needs. */

#define _GNU_SOURCE
#include "attention.h"
#include "kernels.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static inline __mmask16 first_of(int64_t count) { return count >= 16 ? (__mmask16)0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1); }

/* Turn a square of 16 by 16 words of 32 bits. */
static inline void turn(__m512i *x) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512i a = _mm512_unpacklo_epi32(x[i], x[i + 1]), b = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]), d = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (int i = 0; i < 4; i++) {
    const __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88), d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
    x[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    x[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    x[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    x[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

/* A row of up to 32 values from `from` on, the rest zero. */
static inline __m512i values(const bf16 *from, int64_t left) {
  const __mmask32 mask = left >= 32 ? 0xffffffffu : left <= 0 ? 0 : (1u << left) - 1;
  return _mm512_maskz_loadu_epi16(mask, from);
}

static void pack_keys(bf16 *to, const bf16 *from, int64_t row, int64_t keys, int64_t width, int depth) {
  for (int64_t j = 0; j < keys; j += CHUNK)
    for (int64_t half = j; half < j + CHUNK; half += 16)
      for (int c = 0; c < depth; c += 32, to += TILE) {
        __m512i x[16];
        for (int r = 0; r < 16; r++) x[r] = half + r < keys ? values(from + (half + r) * row + c, width - c) : _mm512_setzero_si512();
        turn(x);
        for (int r = 0; r < 16; r++) _mm512_store_si512(to + r * 32, x[r]);
      }
}

static void pack_values(bf16 *to, const bf16 *from, int64_t row, int64_t keys, int64_t width, int columns) {
  const __m512i ones = _mm512_set1_epi32(0x3f803f80);
  for (int64_t j = 0; j < keys; j += CHUNK)
    for (int c = 0; c < columns; c += 16)
      for (int64_t key = j; key < j + 16; key++, to += 32) {
        const __mmask16 mask = first_of(width - c), one = (__mmask16)(mask + 1); /* the bit above, none behind sixteen */
        const int low = key < keys, high = key + 16 < keys;
        const __m256i a = _mm256_maskz_loadu_epi16(low ? mask : 0, from + key * row + c);
        const __m256i b = _mm256_maskz_loadu_epi16(high ? mask : 0, from + (key + 16) * row + c);
        const __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
        const __m512i there = _mm512_and_si512(ones, _mm512_set1_epi32((low ? 0xffff : 0) | (high ? -65536 : 0)));
        _mm512_store_si512(to, _mm512_mask_mov_epi32(both, one, there));
      }
}

struct job {
  const struct safelight_attention *asked;
  int depth, columns;
  int64_t pieces, piece; /* pieces of a head, and queries of a piece */
  atomic_llong next, failed;
};

static char *at(const struct safelight_tensor *t, int64_t batch, int64_t row, int64_t head) {
  return (char *)t->data + (batch * t->batch + row * t->row + head * t->head) * (int64_t)sizeof(bf16);
}

/* Divide, round to bf16 and write the first `many` rows; gives 0 where something is not finite. */
static int finish(const struct job *job, const struct rows *rows, bf16 *to, int64_t many) {
  const struct safelight_attention *a = job->asked;
  int good = 1;
  for (int64_t r = 0; r < many; r++) {
    const float sum = rows->sum[r], *row = rows->result + r * job->columns;
    good &= sum > 0.0f && sum < 1e38f;
    const __m512 part = _mm512_set1_ps(1 / sum);
    for (int64_t c = 0; c < a->width; c += 16) {
      const __mmask16 mask = first_of(a->width - c);
      const __m512 x = _mm512_mul_ps(_mm512_load_ps(row + c), part);
      good &= !_mm512_mask_fpclass_ps_mask(mask, x, 0x99); /* a NaN or an infinity */
      _mm256_mask_storeu_epi16(to + r * a->o.row + c, mask, (__m256i)_mm512_cvtneps_pbh(x));
    }
  }
  return good;
}

static void take(const struct job *job, const struct rows *rows, int64_t batch, int64_t head, int64_t first, int64_t many) {
  for (int64_t r = 0; r < ROWS; r++)
    for (int c = 0; c < job->depth; c += 32) {
      const __m512i x = r < many ? values((const bf16 *)at(&job->asked->q, batch, first + r, head) + c, job->asked->width - c) : _mm512_setzero_si512();
      _mm512_store_si512(rows->q + r * job->depth + c, x);
    }
}

static void *work(void *argument) {
  struct job *job = argument;
  const struct safelight_attention *a = job->asked;
  const int64_t keys = (a->keys + CHUNK - 1) / CHUNK * CHUNK;
  const int tiles = a->path == SAFELIGHT_AMX && a->width > 16 && a->width <= TILES_WIDEST;
  __attribute__((aligned(64))) bf16 q[ROWS * WIDEST];
  __attribute__((aligned(64))) float result[ROWS * WIDEST];
  float sum[ROWS];
  bf16 *k = aligned_alloc(64, (size_t)keys * (size_t)(job->depth + job->columns) * sizeof(bf16));
  if (!k) {
    atomic_store(&job->failed, 1);
    return NULL;
  }
  bf16 *v = k + keys * job->depth;
  const struct head head = {k, v, a->keys, job->depth, job->columns, (int)a->width, a->scale * 1.44269504f};
  const struct rows rows = {q, result, sum};
  if (tiles) safelight_amx_begin();
  int64_t packed = -1, item;
  while ((item = atomic_fetch_add(&job->next, 1)) < a->batches * a->heads * job->pieces) {
    const int64_t which = item / job->pieces, b = which / a->heads, h = which % a->heads;
    const int64_t first = item % job->pieces * job->piece, end = first + job->piece < a->queries ? first + job->piece : a->queries;
    if (which != packed) {
      pack_keys(k, (const bf16 *)at(&a->k, b, 0, h), a->k.row, a->keys, a->width, job->depth);
      pack_values(v, (const bf16 *)at(&a->v, b, 0, h), a->v.row, a->keys, a->width, job->columns);
      packed = which;
    }
    for (int64_t i = first; i < end; i += ROWS) {
      const int64_t many = end - i < ROWS ? end - i : ROWS;
      bf16 *to = (bf16 *)at(&a->o, b, i, h);
      take(job, &rows, b, h, i, many);
      if (tiles) safelight_rows_amx(&head, &rows);
      if (tiles && finish(job, &rows, to, many)) continue;
      safelight_rows_avx512(&head, &rows);
      finish(job, &rows, to, many);
    }
  }
  if (tiles) safelight_amx_end();
  free(k);
  return NULL;
}

int safelight_attention(const struct safelight_attention *a) {
  if (a->width < 1 || a->width > WIDEST || a->keys < 1 || a->threads < 1) return 1;
  struct job job = {.asked = a, .depth = (int)((a->width + 31) / 32 * 32), .columns = (int)((a->width + 15) / 16 * 16)};
  const int64_t whole = a->batches * a->heads, wanted = whole >= 4 * (int64_t)a->threads ? 1 : (4 * (int64_t)a->threads + whole - 1) / whole;
  const int64_t least = 256; /* packing costs as much as some ten rows */
  job.piece = (a->queries + wanted - 1) / wanted;
  if (job.piece < least) job.piece = least;
  job.piece = (job.piece + ROWS - 1) / ROWS * ROWS;
  job.pieces = (a->queries + job.piece - 1) / job.piece;
  safelight_together(work, &job, a->threads, a->cpus, a->cpus_size);
  return atomic_load(&job.failed) ? 2 : 0;
}
