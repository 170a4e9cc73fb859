/* Group normalisation with what follows it (gain, bias, SiLU) of pictures with channels last: read twice, written once. */

#define _GNU_SOURCE
#include "kernels.h"

#include <immintrin.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { PIXELS = 512 /* a piece of work; so many additions in float lose nothing that bf16 shows */, LANES = 16 };

struct job {
  const struct safelight_norm *asked;
  int64_t pieces; /* of a picture */
  float *sums;    /* [batch][piece][2][channels]: of values less the first pixel's, and of their squares */
  float *gains;   /* [batch][2][channels]: factor and summand of a channel */
  atomic_llong next;
};

static inline __m512 wide(__mmask16 mask, const uint16_t *from) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}
static inline __mmask16 mask_at(int64_t channel, int64_t channels) {
  return channels - channel >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << (channels - channel)) - 1);
}

/* y / (1 + e^-y), to the 14 bits of the reciprocal: bf16 keeps 8. */
static inline __m512 silu(__m512 y) {
  const __m512 x = _mm512_mul_ps(y, _mm512_set1_ps(-1.44269504f)), f = _mm512_reduce_ps(x, 1);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.07802483f), f, _mm512_set1_ps(0.22606674f)); /* 2^f to 8e-5 */
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69583366f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.99992522f));
  return _mm512_mul_ps(y, _mm512_rcp14_ps(_mm512_add_ps(_mm512_scalef_ps(p, x), _mm512_set1_ps(1.0f))));
}

static void *add_up(void *argument) {
  struct job *job = argument;
  const struct safelight_norm *a = job->asked;
  int64_t item;
  while ((item = atomic_fetch_add(&job->next, 1)) < a->batches * job->pieces) {
    const int64_t first = item % job->pieces * PIXELS, end = first + PIXELS < a->pixels ? first + PIXELS : a->pixels;
    const uint16_t *picture = (const uint16_t *)a->x + item / job->pieces * a->pixels * a->channels;
    float *sums = job->sums + item * 2 * a->channels;
    for (int64_t c = 0; c < a->channels; c += 2 * LANES) {
      const int64_t d = c + LANES < a->channels ? c + LANES : c; /* a second vector, or the first again */
      const __mmask16 m = mask_at(c, a->channels), n = mask_at(d, a->channels);
      const __m512 base = wide(m, picture + c), other = wide(n, picture + d);
      __m512 s = _mm512_setzero_ps(), t = s, u = s, v = s;
      for (int64_t i = first; i < end; i++) {
        const __m512 x = _mm512_sub_ps(wide(m, picture + i * a->channels + c), base);
        const __m512 y = _mm512_sub_ps(wide(n, picture + i * a->channels + d), other);
        s = _mm512_add_ps(s, x);
        t = _mm512_fmadd_ps(x, x, t);
        u = _mm512_add_ps(u, y);
        v = _mm512_fmadd_ps(y, y, v);
      }
      _mm512_mask_storeu_ps(sums + c, m, s);
      _mm512_mask_storeu_ps(sums + a->channels + c, m, t);
      _mm512_mask_storeu_ps(sums + d, n, u);
      _mm512_mask_storeu_ps(sums + a->channels + d, n, v);
    }
  }
  return NULL;
}

/* Join channels' sums to groups' means and variances, in double: what each picture's channels are multiplied by, and what is added. */
static void settle(const struct job *job, int64_t batch) {
  const struct safelight_norm *a = job->asked;
  const int64_t size = a->channels / a->groups;
  const uint16_t *first = (const uint16_t *)a->x + batch * a->pixels * a->channels;
  float *factor = job->gains + batch * 2 * a->channels, *summand = factor + a->channels;
  for (int64_t g = 0; g < a->groups; g++) {
    double mean = 0, square = 0;
    for (int pass = 0; pass < 2; pass++)
      for (int64_t c = g * size; c < (g + 1) * size; c++) {
        const double base = (double)_mm512_cvtss_f32(wide(1, first + c));
        double sum = 0, squares = 0;
        for (int64_t p = 0; p < job->pieces; p++) {
          const float *sums = job->sums + (batch * job->pieces + p) * 2 * a->channels;
          sum += sums[c];
          squares += sums[a->channels + c];
        }
        if (!pass) {
          mean += (base + sum / (double)a->pixels) / (double)size;
          continue;
        }
        const double off = base - mean; /* the mean of (d + off)^2, where d are the values less base */
        square += (squares / (double)a->pixels + 2 * off * sum / (double)a->pixels + off * off) / (double)size;
      }
    const double scale = 1 / sqrt((square > 0 || square != square ? square : 0) + a->epsilon);
    for (int64_t c = g * size; c < (g + 1) * size; c++) {
      factor[c] = (float)(a->gain[c] * scale);
      summand[c] = (float)(a->bias[c] - mean * a->gain[c] * scale);
    }
  }
}

static void *apply(void *argument) {
  struct job *job = argument;
  const struct safelight_norm *a = job->asked;
  int64_t item;
  while ((item = atomic_fetch_add(&job->next, 1)) < a->batches * job->pieces) {
    const int64_t batch = item / job->pieces, first = item % job->pieces * PIXELS, end = first + PIXELS < a->pixels ? first + PIXELS : a->pixels;
    const float *factor = job->gains + batch * 2 * a->channels, *summand = factor + a->channels;
    for (int64_t i = first; i < end; i++) {
      const uint16_t *from = (const uint16_t *)a->x + (batch * a->pixels + i) * a->channels;
      uint16_t *to = (uint16_t *)a->y + (batch * a->pixels + i) * a->channels;
      for (int64_t c = 0; c < a->channels; c += LANES) {
        const __mmask16 m = mask_at(c, a->channels);
        __m512 y = _mm512_fmadd_ps(wide(m, from + c), _mm512_maskz_loadu_ps(m, factor + c), _mm512_maskz_loadu_ps(m, summand + c));
        if (a->silu) y = silu(y);
        _mm256_mask_storeu_epi16(to + c, m, (__m256i)_mm512_cvtneps_pbh(y));
      }
    }
  }
  return NULL;
}

int safelight_norm(const struct safelight_norm *a) {
  if (a->channels < 1 || a->groups < 1 || a->channels % a->groups || a->pixels < 1 || a->threads < 1) return 1;
  struct job job = {.asked = a, .pieces = (a->pixels + PIXELS - 1) / PIXELS};
  job.sums = malloc((size_t)(a->batches * (job.pieces + 1) * 2 * a->channels) * sizeof(float));
  if (!job.sums) return 2;
  job.gains = job.sums + a->batches * job.pieces * 2 * a->channels;
  safelight_together(add_up, &job, a->threads, a->cpus, a->cpus_size);
  for (int64_t batch = 0; batch < a->batches; batch++) settle(&job, batch);
  atomic_store(&job.next, 0);
  safelight_together(apply, &job, a->threads, a->cpus, a->cpus_size);
  free(job.sums);
  return 0;
}
