/* Group normalisation with gain, bias and SiLU in float, channels last, on AVX2: read twice, written once. */

#define _GNU_SOURCE
#include "kernels.h"

#include <immintrin.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { LANES = 8, PIXELS = 128 /* a piece of work; so many additions in float lose no digit that its result has */ };

struct job {
  const struct safelight_norm *asked;
  int64_t pieces; /* of a picture */
  float *sums;    /* [batch][piece][2][channels]: of values less the first pixel's, and of their squares */
  float *gains;   /* [batch][2][channels]: factor and summand of a channel */
  atomic_llong next, done;
};

/* y / (1 + e^-y): the polynomial gives (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2, interpolated in Chebyshev's points; e^r is within 6e-8 of it. */
static inline __m256 silu(__m256 y) {
  const __m256 x = _mm256_min_ps(_mm256_max_ps(_mm256_sub_ps(_mm256_setzero_ps(), y), _mm256_set1_ps(-87)), _mm256_set1_ps(87));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), x)); /* ln(2) in two parts */
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(0.000198909809f), r, _mm256_set1_ps(0.0013933641f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.00833331093f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.041666465f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.166666667f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_add_ps(_mm256_fmadd_ps(_mm256_mul_ps(r, r), p, r), _mm256_set1_ps(1));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_div_ps(y, _mm256_fmadd_ps(p, _mm256_castsi256_ps(power), _mm256_set1_ps(1)));
}

static void add_up(const struct job *job, int64_t item) {
  const struct safelight_norm *a = job->asked;
  const int64_t first = item % job->pieces * PIXELS, end = first + PIXELS < a->pixels ? first + PIXELS : a->pixels;
  const float *picture = (const float *)a->x + item / job->pieces * a->pixels * a->channels;
  float *sums = job->sums + item * 2 * a->channels;
  for (int64_t c = 0; c < a->channels; c += 2 * LANES) {
    const int64_t d = c + LANES < a->channels ? c + LANES : c; /* a second vector, or the first again */
    const __m256 base = _mm256_loadu_ps(picture + c), other = _mm256_loadu_ps(picture + d);
    __m256 s = _mm256_setzero_ps(), t = s, u = s, v = s;
    for (int64_t i = first; i < end; i++) {
      const __m256 x = _mm256_sub_ps(_mm256_loadu_ps(picture + i * a->channels + c), base);
      const __m256 y = _mm256_sub_ps(_mm256_loadu_ps(picture + i * a->channels + d), other);
      s = _mm256_add_ps(s, x);
      t = _mm256_fmadd_ps(x, x, t);
      u = _mm256_add_ps(u, y);
      v = _mm256_fmadd_ps(y, y, v);
    }
    _mm256_storeu_ps(sums + c, s);
    _mm256_storeu_ps(sums + a->channels + c, t);
    _mm256_storeu_ps(sums + d, u);
    _mm256_storeu_ps(sums + a->channels + d, v);
  }
}

/* Join channels' sums to a group's mean and variance, in double: what its channels are multiplied by, and what is added. */
static void settle(const struct job *job, int64_t batch, int64_t group) {
  const struct safelight_norm *a = job->asked;
  const int64_t size = a->channels / a->groups, from = group * size, end = from + size;
  const double pixels = (double)a->pixels;
  const float *first = (const float *)a->x + batch * a->pixels * a->channels;
  float *factor = job->gains + batch * 2 * a->channels, *summand = factor + a->channels;
  double mean = 0, square = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int64_t c = from; c < end; c++) {
      double sum = 0, squares = 0;
      for (int64_t p = 0; p < job->pieces; p++) {
        const float *sums = job->sums + (batch * job->pieces + p) * 2 * a->channels;
        sum += sums[c];
        squares += sums[a->channels + c];
      }
      if (!pass) {
        mean += (first[c] + sum / pixels) / (double)size;
        continue;
      }
      const double off = first[c] - mean; /* the mean of (d + off)^2, where d are the values less the first pixel's */
      square += (squares / pixels + 2 * off * sum / pixels + off * off) / (double)size;
    }
  const double scale = 1 / sqrt((square > 0 || square != square ? square : 0) + a->epsilon);
  for (int64_t c = from; c < end; c++) {
    factor[c] = (float)(a->gain[c] * scale);
    summand[c] = (float)(a->bias[c] - mean * a->gain[c] * scale);
  }
}

static void apply(const struct job *job, int64_t item) {
  const struct safelight_norm *a = job->asked;
  const int64_t batch = item / job->pieces, first = item % job->pieces * PIXELS, end = first + PIXELS < a->pixels ? first + PIXELS : a->pixels;
  const float *factor = job->gains + batch * 2 * a->channels, *summand = factor + a->channels;
  for (int64_t i = first; i < end; i++) {
    const float *from = (const float *)a->x + (batch * a->pixels + i) * a->channels;
    float *to = (float *)a->y + (batch * a->pixels + i) * a->channels;
    for (int64_t c = 0; c < a->channels; c += LANES) {
      const __m256 y = _mm256_fmadd_ps(_mm256_loadu_ps(from + c), _mm256_loadu_ps(factor + c), _mm256_loadu_ps(summand + c));
      _mm256_storeu_ps(to + c, a->silu ? silu(y) : y);
    }
  }
}

static void *work(void *argument) {
  struct job *job = argument;
  const struct safelight_norm *a = job->asked;
  const int64_t pieces = a->batches * job->pieces, groups = a->batches * a->groups;
  int64_t item;
  while ((item = atomic_fetch_add(&job->next, 1)) < 2 * pieces + groups) {
    const int64_t group = item - pieces, again = group - groups;
    safelight_wait(&job->done, again >= 0 ? pieces + groups : group >= 0 ? pieces : 0);
    if (again >= 0) apply(job, again);
    else if (group >= 0) settle(job, group / a->groups, group % a->groups);
    else add_up(job, item);
    atomic_fetch_add_explicit(&job->done, 1, memory_order_release);
  }
  return NULL;
}

int safelight_norm_f32(const struct safelight_norm *a) {
  if (a->channels < LANES || a->channels % LANES || a->groups < 1 || a->channels % a->groups || a->pixels < 1 || a->threads < 1) return 1;
  struct job job = {.asked = a, .pieces = (a->pixels + PIXELS - 1) / PIXELS};
  job.sums = malloc((size_t)(a->batches * (job.pieces + 1) * 2 * a->channels) * sizeof(float));
  if (!job.sums) return 2;
  job.gains = job.sums + a->batches * job.pieces * 2 * a->channels;
  safelight_together(work, &job, a->threads, a->cpus, a->cpus_size);
  free(job.sums);
  return 0;
}
