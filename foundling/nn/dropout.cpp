// Dropout of a tensor by a counter-based generator: whether value i is dropped follows from the seed and i alone, so
// the backward pass needs no mask and threads need no order.
#include "native.h"

// Murmur3's finalizer with the constants of Wellons' search (lowbias32), once for the place and once for the seed.
static inline uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0x735a2d97u;
  return x ^ (x >> 15);
}

template <typename T>
static void drop(const T* from, T* to, int64_t size, uint64_t seed, float rate) {
  const uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
  const float keep = 1.0f / (1.0f - rate);
  const int32_t threshold = static_cast<int32_t>(rate * 2147483648.0f);  // of 31 bits: signed comparisons are vectors
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < size; i++) {
    const uint32_t drawn = mixed(mixed(static_cast<uint32_t>(i) + low) ^ high);
    put(to[i], static_cast<int32_t>(drawn >> 1) < threshold ? 0.0f : to_float(from[i]) * keep);
  }
}

extern "C" void dropout_bf16(const bf16* from, bf16* to, int64_t size, uint64_t seed, float rate) {
  drop(from, to, size, seed, rate);
}

extern "C" void dropout_fp32(const float* from, float* to, int64_t size, uint64_t seed, float rate) {
  drop(from, to, size, seed, rate);
}
