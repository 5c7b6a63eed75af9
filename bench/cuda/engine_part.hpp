#pragma once
// Parts of the GPU benchmark that need the engine.

#include <vector>

#include "backends/local/kernels/cuda/kernels.hpp"

// What the card gives: matrix products, in TFLOP/s.
struct Rates {
  double bf16_tflop, fp8_tflop;
};
using Formats = std::vector<ganglion::local::cuda::Format>;

// decoder_part.cpp: steps of decoding, with the ring of the streaming products as usual or of `ring` stages; the same
// with several rings; a step as one kernel and as many; prompts; continuous batching. `read_gb`: what the memory gives,
// in GB/s.
void decode_part(double read_gb, int layers, int ring, const Formats& formats);
void rings_part(double read_gb, int layers, const Formats& formats);
void whole_part(double read_gb, int layers, const Formats& formats);
void prefill_part(Rates most, int layers);
void batch_part(int layers, int batch, int requests);

// engine_part.cpp: what a prompt costs of which most is found computed, and what making text beside the next step is
// worth.
void prefix_part(int layers);
void overlap_part(const char* model_dir);
// families_part.cpp: steps of families that take the separate kernels.
void families_part(double read_gb);

// models_part.cpp: the encoder at BGE-base's shapes; a decoder over two GPUs beside one.
void bert_part(double bf16_tflop, double read_gb);
void ranks_part(int layers);
// roofline_part.cpp: every kernel of a step against its floor.
void roofline_part(int multiprocessors, int capability, double read_gb, double bf16_tflop, double fp8_tflop);
// eight_bit_part.cpp: products of few rows in fp8, ours beside the library's.
void eight_bit_part(int multiprocessors, int capability, double read_gb);
// steps_part.cpp: what a step lasts by its rows, with the library's products of 8 by 8 bits and with our own.
void steps_part(int layers);
