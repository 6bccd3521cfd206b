/* The functions of CUDA's runtime that have to give something back. See __init__.py. */

#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#define OK cudaSuccess

long num_kernels = 0, num_recorded = 0, num_replayed = 0;
static int is_recording = 0;

static cudaError_t zeroed(void **pointer, size_t size) {
    if (posix_memalign(pointer, 512, size ? size : 1)) return cudaErrorMemoryAllocation;
    memset(*pointer, 0, size);
    return OK;
}

cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return OK; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return OK; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return OK; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return OK; }
const char *cudaGetErrorString(cudaError_t error) { return "an error"; }
const char *cudaGetErrorName(cudaError_t error) { return "an error"; }

/* In the numbers of an H100. */
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *it, int device) {
    memset(it, 0, sizeof *it);
    strcpy(it->name, "idle");
    it->major = 9;
    it->totalGlobalMem = 80ull << 30;
    it->multiProcessorCount = 132;
    it->sharedMemPerBlock = 48 << 10;
    it->sharedMemPerBlockOptin = 227 << 10;
    it->sharedMemPerMultiprocessor = 228 << 10;
    it->regsPerBlock = it->regsPerMultiprocessor = 64 << 10;
    it->warpSize = 32;
    it->maxThreadsPerBlock = it->maxThreadsDim[0] = it->maxThreadsDim[1] = 1024;
    it->maxThreadsDim[2] = 64;
    it->maxThreadsPerMultiProcessor = 2048;
    it->maxGridSize[0] = 2147483647;
    it->maxGridSize[1] = it->maxGridSize[2] = 65535;
    it->l2CacheSize = 50 << 20;
    return OK;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp it;
    cudaGetDeviceProperties(&it, device);
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = it.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = it.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = it.multiProcessorCount; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = it.maxThreadsPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = it.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = it.sharedMemPerMultiprocessor; break;
    case cudaDevAttrMemoryPoolsSupported: *value = 0; break;
    default: *value = 1;
    }
    return OK;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *total = 80ull << 30;
    *free_bytes = 79ull << 30;
    return OK;
}

cudaError_t cudaMalloc(void **pointer, size_t size) { return zeroed(pointer, size); }
cudaError_t cudaMallocHost(void **pointer, size_t size) { return zeroed(pointer, size); }
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) { return zeroed(pointer, size); }
cudaError_t cudaFree(void *pointer) { free(pointer); return OK; }
cudaError_t cudaFreeHost(void *pointer) { free(pointer); return OK; }

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    memmove(to, from, size);
    return OK;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return cudaMemcpy(to, from, size, kind);
}

cudaError_t cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return OK; }

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
    return cudaMemset(to, value, size);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
    for (size_t row = 0; row < height; row++)
        memmove((char *)to + row * to_pitch, (const char *)from + row * pitch, width);
    return OK;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *it, const void *pointer) {
    memset(it, 0, sizeof *it);
    it->type = cudaMemoryTypeDevice;
    it->devicePointer = (void *)pointer;
    return OK;
}

cudaError_t cudaStreamCreate(cudaStream_t *it) { return zeroed((void **)it, 1); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *it, unsigned flags) { return zeroed((void **)it, 1); }
cudaError_t cudaEventCreate(cudaEvent_t *it) { return zeroed((void **)it, 1); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *it, unsigned flags) { return zeroed((void **)it, 1); }

void **__cudaRegisterFatBinary(void *binary) { static void *handle; return &handle; }

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *it, const void *kernel) {
    memset(it, 0, sizeof *it);
    it->maxThreadsPerBlock = 1024;
    it->numRegs = 64;
    it->binaryVersion = it->ptxVersion = 90;
    return OK;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks, const void *kernel, int threads, size_t shared, unsigned flags) {
    *blocks = 1;
    return OK;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    grid->x = grid->y = grid->z = block->x = block->y = block->z = 1;
    *shared = 0;
    *(void **)stream = NULL;
    return OK;
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments,
                             size_t shared, cudaStream_t stream) {
    num_kernels++;
    return OK;
}

cudaError_t __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **arguments,
                               size_t shared, cudaStream_t stream) {
    return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    is_recording = 1;
    return OK;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = is_recording ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return OK;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    is_recording = 0;
    num_recorded++;
    return zeroed((void **)graph, 1);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *it, cudaGraph_t graph, unsigned long long flags) {
    return zeroed((void **)it, 1);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    num_replayed++;
    return OK;
}
