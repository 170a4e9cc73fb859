/* What the processor can and the system allows, and threads. Compiled for any x86-64. */

#define _GNU_SOURCE
#include "kernels.h"

#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PERMIT = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILES = 18 /* the feature number of tile data */, MOST_THREADS = 256, CPUS = 8192 };
static const uint64_t VECTORS = 0xe6; /* SSE, AVX, masks, both halves of zmm */

static uint64_t saved_by_the_system(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}

int safelight_version(void) { return SAFELIGHT_VERSION; }

int safelight_has_avx512(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  return (b & bit_AVX512F) && (saved_by_the_system() & VECTORS) == VECTORS;
}

int safelight_path(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return SAFELIGHT_NONE;
  const uint64_t saved = saved_by_the_system(), tiles = 0x60000;
  const int known = (c & bit_FMA) && (c & bit_F16C);
  if ((saved & 6) != 6 || !known || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return SAFELIGHT_NONE;
  const unsigned needed = bit_AVX2 | bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
  const int matrix = (d & (1u << 24)) && (d & (1u << 22)); /* AMX_TILE, AMX_BF16 */
  if ((saved & VECTORS) != VECTORS || (b & needed) != needed || a < 1) return SAFELIGHT_AVX2;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & (1u << 5))) return SAFELIGHT_AVX2; /* no AVX512_BF16 */
  if (!matrix || (saved & tiles) != tiles) return SAFELIGHT_AVX512_BF16;
  return syscall(SYS_arch_prctl, PERMIT, TILES) == 0 ? SAFELIGHT_AMX : SAFELIGHT_AVX512_BF16;
}

/* Take the processor that the caller is on out of the set, where another one is left: a new thread begins where it was put, and there it would wait
   until the caller is done. */
static int elsewhere(unsigned char *to, const void *cpus, size_t size) {
  const int here = sched_getcpu();
  memcpy(to, cpus, size);
  if (here >= 0 && (size_t)here / 8 < size) to[here / 8] &= (unsigned char)~(1u << here % 8);
  for (size_t i = 0; i < size; i++)
    if (to[i]) return 1;
  return 0;
}

void safelight_together(void *(*work)(void *), void *argument, int threads, const void *cpus, size_t cpus_size) {
  pthread_t others[MOST_THREADS];
  pthread_attr_t with;
  _Alignas(8) unsigned char set[CPUS / 8];
  int started = 0;
  if (threads > 1 && pthread_attr_init(&with) == 0) {
    /* OpenVINO ties its threads to a core each, and a new thread inherits that. */
    if (cpus) pthread_attr_setaffinity_np(&with, cpus_size, cpus_size <= sizeof set && elsewhere(set, cpus, cpus_size) ? (const void *)set : cpus);
    while (started < threads - 1 && started < MOST_THREADS && pthread_create(&others[started], &with, work, argument) == 0) started++;
    pthread_attr_destroy(&with);
  }
  work(argument); /* whoever could not be started is not missed: work is taken, not given */
  for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
}
