#pragma once
// Parts of the GPU benchmark that need the engine: what a prompt costs of which most is found computed, and what making
// text beside the next step is worth.

void prefix_part(int layers);
void overlap_part(const char* model_dir);
// Steps of families that take the separate kernels; `read_gb`: what the memory gives, in GB/s.
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
