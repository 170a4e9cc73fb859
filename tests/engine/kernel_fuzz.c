/* Random attentions over buffers that end where their last value does, against double; for sanitizers. */
#include "attention.h"
#include "kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;
static uint64_t draw(uint64_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % below;
}
static float wide(bf16 x) {
  uint32_t bits = (uint32_t)x << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
static bf16 narrow(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return (bf16)((bits + 0x8000) >> 16);
}
static struct safelight_tensor tensor(int64_t batches, int64_t rows, int64_t heads, int64_t width, int64_t gap) {
  const int64_t head = width + gap, row = heads * head, batch = rows * row;
  const size_t many = (size_t)((batches - 1) * batch + (rows - 1) * row + (heads - 1) * head + width);
  bf16 *data = malloc(many * sizeof *data);
  for (size_t i = 0; i < many; i++) data[i] = narrow((float)draw(4001) / 1000 - 2);
  return (struct safelight_tensor){data, batch, row, head};
}
static bf16 value(const struct safelight_tensor *t, int64_t b, int64_t n, int64_t h, int64_t c) {
  return ((bf16 *)t->data)[b * t->batch + n * t->row + h * t->head + c];
}
static double one(const struct safelight_attention *a, int64_t b, int64_t h, int64_t n, int64_t c) {
  double most = -INFINITY, sum = 0, result = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int64_t j = 0; j < a->keys; j++) {
      double score = 0;
      for (int64_t i = 0; i < a->width; i++) score += (double)wide(value(&a->q, b, n, h, i)) * wide(value(&a->k, b, j, h, i));
      score *= a->scale;
      if (!pass) {
        most = score > most ? score : most;
        continue;
      }
      sum += exp(score - most);
      result += exp(score - most) * wide(value(&a->v, b, j, h, c));
    }
  return result / sum;
}
int main(int count, char **arguments) {
  const int many = count > 1 ? atoi(arguments[1]) : 100, best = safelight_path();
  if (best < SAFELIGHT_AVX512_BF16) return fprintf(stderr, "no bf16\n"), 1;
  for (int i = 0; i < many; i++) {
    struct safelight_attention a = {.batches = 1 + (int64_t)draw(2), .heads = 1 + (int64_t)draw(3), .queries = 1 + (int64_t)draw(90), .keys = 1 + (int64_t)draw(200),
                                    .width = 1 + (int64_t)draw(160), .path = 2 + (int32_t)draw((uint64_t)best - 1), .threads = 1 + (int32_t)draw(3)};
    a.scale = (float)(1 / sqrt((double)a.width));
    a.q = tensor(a.batches, a.queries, a.heads, a.width, (int64_t)draw(3));
    a.k = tensor(a.batches, a.keys, a.heads, a.width, (int64_t)draw(3));
    a.v = tensor(a.batches, a.keys, a.heads, a.width, (int64_t)draw(3));
    a.o = tensor(a.batches, a.queries, a.heads, a.width, (int64_t)draw(3));
    if (safelight_attention(&a)) return fprintf(stderr, "refused\n"), 1;
    for (int check = 0; check < 5; check++) {
      const int64_t b = (int64_t)draw((uint64_t)a.batches), h = (int64_t)draw((uint64_t)a.heads), n = (int64_t)draw((uint64_t)a.queries), c = (int64_t)draw((uint64_t)a.width);
      const double got = wide(value(&a.o, b, n, h, c)), right = one(&a, b, h, n, c);
      if (!(fabs(got - right) < 0.02)) return fprintf(stderr, "%g where %g is right\n", got, right), 1;
    }
    free(a.q.data);
    free(a.k.data);
    free(a.v.data);
    free(a.o.data);
  }
  printf("%d attentions\n", many);
  return 0;
}
