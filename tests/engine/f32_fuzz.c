/* Random convolutions, normalisations and attentions over buffers that end where their last value does, against double; for sanitizers. */
#include "kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state = 88172645463325252u;
static int64_t draw(uint64_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (int64_t)(state % below);
}
static float *values(int64_t many) {
  float *made = malloc((size_t)many * sizeof *made);
  for (int64_t i = 0; i < many; i++) made[i] = (float)draw(4001) / 1000 - 2;
  return made;
}

static int convolution(void) {
  struct safelight_convolution a = {.batches = 1 + draw(2), .inputs = 8 * (1 + draw(6)), .outputs = 8 * (1 + draw(6)), .doubled = (int32_t)draw(2), .threads = 1 + (int32_t)draw(3)};
  a.height = (1 + draw(20)) << a.doubled;
  a.width = (1 + draw(20)) << a.doubled;
  if (draw(8) == 0) { /* so many pixels and weights that all threads share rounds; inputs of one depth or two */
    a.inputs = 8 * (20 + draw(40));
    a.outputs = 8 * (24 + draw(4));
    a.height = a.width = 46 + 2 * draw(4);
  }
  const int64_t low = a.height >> a.doubled, narrow = a.width >> a.doubled, whole = a.batches * a.height * a.width * a.outputs, panels = (a.outputs + 15) / 16;
  float *x = values(a.batches * low * narrow * a.inputs), *bias = values(a.batches * a.outputs), *more = draw(2) ? values(whole) : NULL;
  a.half = (int32_t)draw(2);
  void *weights = calloc((size_t)(9 * panels * 16 * a.inputs), a.half ? 2 : 4);
  float *y = malloc((size_t)whole * sizeof *y);
  /* 1, 2 or 3 in the middle, 0 around it. */
  static const uint16_t halves[3] = {0x3c00, 0x4000, 0x4200};
  for (int64_t n = 0; n < a.outputs; n++)
    for (int64_t c = 0; c < a.inputs; c++) {
      const int64_t middle = ((n / 16 * a.inputs + c) * 9 + 4) * 16 + n % 16, weight = (n + c) % 3;
      if (a.half) ((uint16_t *)weights)[middle] = halves[weight];
      else ((float *)weights)[middle] = (float)(1 + weight);
    }
  a.x = x;
  a.y = y;
  a.weights = weights;
  a.bias = bias;
  a.more = more;
  if (safelight_convolution(&a)) return fprintf(stderr, "refused\n"), 1;
  for (int check = 0; check < 20; check++) {
    const int64_t b = draw((uint64_t)a.batches), i = draw((uint64_t)a.height), j = draw((uint64_t)a.width), n = draw((uint64_t)a.outputs), at = ((b * a.height + i) * a.width + j) * a.outputs + n;
    double right = bias[b * a.outputs + n] + (more ? more[at] : 0);
    for (int64_t c = 0; c < a.inputs; c++) right += x[((b * low + (i >> a.doubled)) * narrow + (j >> a.doubled)) * a.inputs + c] * (double)(1 + (n + c) % 3);
    if (!(fabs(y[at] - right) < 2e-3)) return fprintf(stderr, "%g where %g is right\n", (double)y[at], right), 1;
  }
  free(x);
  free(y);
  free(weights);
  free(bias);
  free(more);
  return 0;
}

static int normalisation(void) {
  struct safelight_norm a = {.batches = 1 + draw(3), .pixels = 1 + draw(400), .groups = 1 + draw(4), .epsilon = 1e-5, .threads = 1 + (int32_t)draw(3)};
  a.channels = a.groups * 8 * (1 + draw(4));
  const int64_t whole = a.batches * a.pixels * a.channels;
  float *x = values(whole), *y = malloc((size_t)whole * sizeof *y), *gain = values(a.channels), *bias = values(a.channels);
  a.x = x;
  a.y = y;
  a.gain = gain;
  a.bias = bias;
  if (safelight_norm_f32(&a)) return fprintf(stderr, "refused\n"), 1;
  const int64_t b = draw((uint64_t)a.batches), g = draw((uint64_t)a.groups), size = a.channels / a.groups;
  double mean = 0, square = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int64_t i = 0; i < a.pixels * size; i++) {
      const double value = x[(b * a.pixels + i / size) * a.channels + g * size + i % size];
      if (!pass) mean += value / (double)(a.pixels * size);
      else square += (value - mean) * (value - mean) / (double)(a.pixels * size);
    }
  for (int check = 0; check < 20; check++) {
    const int64_t c = g * size + draw((uint64_t)size), at = (b * a.pixels + draw((uint64_t)a.pixels)) * a.channels + c;
    const double right = (x[at] - mean) / sqrt(square + a.epsilon) * gain[c] + bias[c];
    if (!(fabs(y[at] - right) < 1e-3)) return fprintf(stderr, "%g where %g is right\n", (double)y[at], right), 1;
  }
  free(x);
  free(y);
  free(gain);
  free(bias);
  return 0;
}

static struct safelight_tensor tensor(int64_t batches, int64_t rows, int64_t heads, int64_t width) {
  const int64_t head = width + draw(3), row = heads * head, batch = rows * row;
  return (struct safelight_tensor){values((batches - 1) * batch + (rows - 1) * row + (heads - 1) * head + width), batch, row, head};
}
static double value(const struct safelight_tensor *t, int64_t b, int64_t n, int64_t h, int64_t c) {
  return ((float *)t->data)[b * t->batch + n * t->row + h * t->head + c];
}

static int attention(void) {
  struct safelight_attention a = {.batches = 1 + draw(2), .heads = 1 + draw(3), .queries = 1 + draw(500), .keys = 1 + draw(300), .width = 8 * (1 + draw(20)), .threads = 1 + (int32_t)draw(3)};
  a.scale = (float)(1 / sqrt((double)a.width));
  a.q = tensor(a.batches, a.queries, a.heads, a.width);
  a.k = tensor(a.batches, a.keys, a.heads, a.width);
  a.v = tensor(a.batches, a.keys, a.heads, a.width);
  a.o = tensor(a.batches, a.queries, a.heads, a.width);
  if (safelight_attention_f32(&a)) return fprintf(stderr, "refused\n"), 1;
  for (int check = 0; check < 20; check++) {
    const int64_t b = draw((uint64_t)a.batches), h = draw((uint64_t)a.heads), n = draw((uint64_t)a.queries), c = draw((uint64_t)a.width);
    double most = -INFINITY, sum = 0, right = 0;
    for (int pass = 0; pass < 2; pass++)
      for (int64_t j = 0; j < a.keys; j++) {
        double score = 0;
        for (int64_t i = 0; i < a.width; i++) score += a.scale * value(&a.q, b, n, h, i) * value(&a.k, b, j, h, i);
        if (!pass) most = score > most ? score : most;
        else {
          sum += exp(score - most);
          right += exp(score - most) * value(&a.v, b, j, h, c);
        }
      }
    if (!(fabs(value(&a.o, b, n, h, c) - right / sum) < 1e-5)) return fprintf(stderr, "%g where %g is right\n", value(&a.o, b, n, h, c), right / sum), 1;
  }
  free(a.q.data);
  free(a.k.data);
  free(a.v.data);
  free(a.o.data);
  return 0;
}

int main(int count, char **arguments) {
  const int many = count > 1 ? atoi(arguments[1]) : 100;
  for (int i = 0; i < many; i++)
    if (convolution() || normalisation() || attention()) return 1;
  printf("%d of each\n", many);
  return 0;
}
