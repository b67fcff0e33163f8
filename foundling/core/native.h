// What the C++ kernels share: bf16 as 16-bit integers, and an exponential that compilers turn into vector code.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct bf16 {
  uint16_t bits;
};

static inline float to_float(float x) { return x; }

static inline float to_float(bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

static inline void put(float& to, float x) { to = x; }

// To the nearest, ties to even.
static inline void put(bf16& to, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  to.bits = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x for x <= 0 to 2 units in the last place, 0 below -87; NaN stays NaN. Polynomial and split of log 2 as in
// Cephes' expf.
static inline float exp_below_zero(float x) {
  const float least = -87.0f;
  const float y = x < least ? least : x;
  const float n = std::nearbyint(y * 1.44269504f);
  const float r = y - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t exponent = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &exponent, 4);
  return x < least ? 0.0f : p * power;
}
