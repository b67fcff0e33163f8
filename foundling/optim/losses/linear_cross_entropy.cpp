// A loss of rows of logits, in place: each row becomes its gradient x scale. With q = log p of the target, log Z the log
// of the partition sum and V words, the loss of a row is
//   -(1 - smoothing) (1 - p)^gamma q + smoothing (log Z - mean logit) + z (log Z)^2.
#include <algorithm>
#include <memory>

#include "native.h"

// logits [rows, words]; bias [words] or null, in the logits' type; targets [rows]; losses [rows], unscaled.
template <typename T>
static void cross_entropy(T* logits, const T* bias, const int64_t* targets, float* losses, int64_t rows, int64_t words,
                          float scale, float smoothing, float gamma, float z) {
#pragma omp parallel
  {
    const std::unique_ptr<float[]> room(new float[words]);
    float* x = room.get();
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
      T* s = logits + row * words;
      float top = -INFINITY;
      if (bias) {
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < words; i++) {
          x[i] = to_float(s[i]) + to_float(bias[i]);
          top = x[i] > top ? x[i] : top;
        }
      } else {
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < words; i++) {
          x[i] = to_float(s[i]);
          top = x[i] > top ? x[i] : top;
        }
      }
      const int64_t target = targets[row];
      const float target_logit = x[target];
      float mean = 0.0f;
      if (smoothing > 0.0f) {
#pragma omp simd reduction(+ : mean)
        for (int64_t i = 0; i < words; i++) mean += x[i];
        mean /= words;
      }
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < words; i++) {
        x[i] = exp_below_zero(x[i] - top);
        sum += x[i];
      }
      const float log_z = top + std::log(sum), q = target_logit - log_z;
      float focus = 1.0f, slope = 1.0f;  // (1 - p)^gamma, and by how much the loss falls with q
      if (gamma > 0.0f) {
        const float p = std::exp(q), rest = std::max(1.0f - p, 1e-12f);
        focus = std::pow(rest, gamma);
        slope = focus - gamma * std::pow(rest, gamma - 1.0f) * p * q;
      }
      losses[row] = -(1.0f - smoothing) * focus * q + smoothing * (log_z - mean) + z * log_z * log_z;
      const float share = (1.0f - smoothing) * slope * scale;
      const float factor = (share + (smoothing + 2.0f * z * log_z) * scale) / sum;
      const float spread = smoothing * scale / words;
      const float at_target = x[target] * factor - spread - share;
#pragma omp simd
      for (int64_t i = 0; i < words; i++) put(s[i], x[i] * factor - spread);
      put(s[target], at_target);
    }
  }
}

extern "C" void cross_entropy_bf16(bf16* logits, const bf16* bias, const int64_t* targets, float* losses, int64_t rows,
                                   int64_t words, float scale, float smoothing, float gamma, float z) {
  cross_entropy(logits, bias, targets, losses, rows, words, scale, smoothing, gamma, z);
}

extern "C" void cross_entropy_fp32(float* logits, const float* bias, const int64_t* targets, float* losses,
                                   int64_t rows, int64_t words, float scale, float smoothing, float gamma, float z) {
  cross_entropy(logits, bias, targets, losses, rows, words, scale, smoothing, gamma, z);
}
