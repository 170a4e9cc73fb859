/* A CUDA runtime that computes nothing and counts: memory is the host's, kernels are not run. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { ALLOCATED, COPIED, WAITED, LAUNCHED, CAPTURED, REPLAYED, KINDS };
static long counts[KINDS];
static int capturing;
long counted(int kind) { return counts[kind]; }

#define GOOD(name, ...) int name(__VA_ARGS__) { return 0; }
static int give(void **where) { *where = (void *)64; return 0; }

int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetDevice(int *n) { *n = 0; return 0; }
GOOD(cudaSetDevice, int n)
GOOD(cudaGetLastError, void)
GOOD(cudaPeekAtLastError, void)
int cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
int cudaMemGetInfo(size_t *f, size_t *t) { *f = *t = (size_t)8 << 30; return 0; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : 0; return 0; }
struct properties {
    char name[256], uuid[16], luid[8];
    unsigned mask;
    size_t memory, shared;
    int registers, warp;
    size_t pitch;
    int threads, block[3], grid[3];
    size_t constants;
    int major, minor;
    size_t alignment, pitch_alignment;
    int processors;
};
int cudaGetDeviceProperties(struct properties *p, int d) {
    memset(p, 0, sizeof *p);
    p->memory = (size_t)8 << 30;
    p->shared = 49152;
    p->registers = 65536;
    p->warp = 32;
    p->threads = p->block[0] = p->block[1] = 1024;
    p->block[2] = 64;
    p->grid[0] = 2147483647;
    p->grid[1] = p->grid[2] = 65535;
    p->major = 8;
    p->processors = 108;
    return 0;
}

int cudaDeviceSynchronize(void) { counts[WAITED]++; return 0; }
int cudaStreamSynchronize(void *s) { counts[WAITED]++; return 0; }
int cudaEventSynchronize(void *e) { counts[WAITED]++; return 0; }
int cudaStreamCreateWithFlags(void **s, unsigned f) { return give(s); }
int cudaStreamCreate(void **s) { return give(s); }
GOOD(cudaStreamDestroy, void *s)
GOOD(cudaStreamWaitEvent, void *s, void *e, unsigned f)
int cudaStreamIsCapturing(void *s, int *state) { *state = capturing; return 0; }
int cudaEventCreateWithFlags(void **e, unsigned f) { return give(e); }
int cudaEventCreate(void **e) { return give(e); }
GOOD(cudaEventDestroy, void *e)
GOOD(cudaEventRecord, void *e, void *s)
GOOD(cudaEventRecordWithFlags, void *e, void *s, unsigned f)

static int allocate(void **p, size_t n) { counts[ALLOCATED]++; *p = calloc(1, n); return *p ? 0 : 2; }
int cudaMalloc(void **p, size_t n) { return allocate(p, n); }
int cudaMallocHost(void **p, size_t n) { return allocate(p, n); }
int cudaHostAlloc(void **p, size_t n, unsigned f) { return allocate(p, n); }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
static int copy(void *to, const void *from, size_t n) { counts[COPIED]++; memcpy(to, from, n); return 0; }
int cudaMemcpy(void *d, const void *s, size_t n, int k) { return copy(d, s, n); }
int cudaMemcpyAsync(void *d, const void *s, size_t n, int k, void *t) { return copy(d, s, n); }
int cudaMemset(void *d, int v, size_t n) { memset(d, v, n); return 0; }
int cudaMemsetAsync(void *d, int v, size_t n, void *s) { memset(d, v, n); return 0; }

struct three { unsigned x, y, z; };
int cudaLaunchKernel(const void *f, struct three g, struct three b, void **a, size_t n, void *s) { counts[LAUNCHED]++; return 0; }
int __cudaLaunchKernel(void *f, struct three g, struct three b, void **a, size_t n, void *s) { counts[LAUNCHED]++; return 0; }
int cudaLaunchKernelExC(const void *c, const void *f, void **a) { counts[LAUNCHED]++; return 0; }
int __cudaGetKernel(void **k, const void *f) { return give(k); }
GOOD(cudaFuncSetAttribute, const void *f, int a, int v)
int cudaStreamBeginCapture(void *s, int mode) { counts[CAPTURED]++; capturing = 1; return 0; }
int cudaStreamEndCapture(void *s, void **g) { capturing = 0; return give(g); }
int cudaGraphInstantiate(void **e, void *g, unsigned long long f) { return give(e); }
int cudaGraphLaunch(void *e, void *s) { counts[REPLAYED]++; return 0; }
GOOD(cudaGraphDestroy, void *g)
GOOD(cudaGraphExecDestroy, void *e)

int cublasCreate_v2(void **h) { return give(h); }
GOOD(cublasDestroy_v2, void *h)
GOOD(cublasSetStream_v2, void *h, void *s)
GOOD(cublasSetMathMode, void *h, int m)
GOOD(cublasGetMathMode, void *h, int *m)
int cublasSgemm_v2(void) { counts[LAUNCHED]++; return 0; }
int cublasGemmEx(void) { counts[LAUNCHED]++; return 0; }
int cublasGemmStridedBatchedEx(void) { counts[LAUNCHED]++; return 0; }
int cublasSgemmStridedBatched(void) { counts[LAUNCHED]++; return 0; }
int cublasLtCreate(void **h) { return give(h); }
GOOD(cublasLtDestroy, void *h)

/* cuDNN is opened by name, from the folder of this file. */
int cudnnCreate(void **h) { return give(h); }
GOOD(cudnnDestroy, void *h)
GOOD(cudnnSetStream, void *h, void *s)
unsigned long cudnnGetVersion(void) { return 92000; }
const char *cudnnGetErrorString(int s) { return "stand-in"; }

/* Of the driver's library the provider needs this one to be loaded. */
int cuTensorMapEncodeTiled(void) { return 999; }
