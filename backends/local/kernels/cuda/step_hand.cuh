#pragma once
// How the parts of the kernel that runs a whole decode step hand over to each other: by the values themselves. Device
// code only.
//
// Where a part leaves its values every byte is 0xff before, and no value is that: what is not a number is 0x7fff as
// bf16 and 0x7fffffff as fp32, whatever it came from. A reader asks again for what it finds unset. Blocks count when
// they have left theirs, and one thread of each looks at that counter until half of them have: so that all of them ask
// a few times, and not all the time, which keeps the second-level cache busy and everything else waiting. But the
// counter proves nothing, and need not come after the values; so neither do their stores have to be through before it,
// nor all blocks' before the first asking, which is what a barrier over all blocks takes most of its time for.
//
// Orders. A block takes part in a product if it has row blocks of it; only then it reads what the product multiplies,
// and all of that: once it has, every block that took part in the product before is through with what that one
// multiplied. (A unit of attention reads its own heads alone; the units together read all, and the output product reads
// all units.) Hence unset_behind() may make a place unset again two parts after it was read, as soon as its block has
// its activations; a fence lies between that and the values which this block leaves next, and nobody writes or reads
// the place anew before two more parts are whole. Where some blocks take no part in a product (small models), whoever
// takes part waits for the whole count before, which then is behind that fence. Rows that only pad have no queries that
// anyone reads: theirs are not written. All of it takes for granted that a store is not seen before what it depends on
// was read, which relaxed accesses do not promise by their letter and devices do. tests/simulation/step_hand.py plays
// this at random.

#include "backends/local/kernels/cuda/step_parts.cuh"

namespace ganglion::local::cuda {
namespace step {

// Of two bf16, or one float.
__device__ __forceinline__ bool any_unset(std::uint32_t two) {
  return (two & 0xffffu) == 0xffffu || two >> 16 == 0xffffu;
}
__device__ __forceinline__ bool any_unset(uint4 v) {
  return any_unset(v.x) || any_unset(v.y) || any_unset(v.z) || any_unset(v.w);
}
__device__ __forceinline__ bool is_unset(float v) {
  return __float_as_uint(v) == 0xffffffffu;
}

// Makes what part `hand` left unset again: a warp's share, as number `share` of `shares`.
__device__ __forceinline__ void unset(int hand, int share, int shares) {
  const std::uint32_t ones = 0xffffffffu;
  char* base = static_cast<char*>(shared().step.handed);
  const int end = shared().places.handed[hand + 1];
#pragma unroll 1
  for (int at = shared().places.handed[hand] + (share * 32 + static_cast<int>(threadIdx.x) % 32) * 16; at < end;
       at += shares * 32 * 16) {
    store_shown(reinterpret_cast<uint4*>(base + at), {ones, ones, ones, ones});
  }
}

// By relaxed accesses, as the counter only says when to ask; but behind unset_behind()'s fence.
__device__ __forceinline__ void count_one(std::uint32_t* counter) {
  asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
// One thread waits until the counter is there. `Proves`: and sees what was left before it was counted.
template <bool Proves>
__device__ __forceinline__ void count_wait(const std::uint32_t* counter, std::uint32_t target) {
#pragma unroll 1
  for (int i = 0; i < kPollsMax; ++i) {
    std::uint32_t seen;
    if constexpr (Proves) {  // what the first-level cache has goes with every look
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    } else {
      seen = load_shown(counter);
    }
    if (seen >= target) return;
  }
  __trap();
}

// Where consumers wait before a part. All consuming warps.
class Gate {
 public:
  // Until it is time to ask for what the part before left.
  __device__ __forceinline__ void wait() const {
    constexpr std::uint32_t kEighths = 4;  // of those who leave something, measured
    if (threadIdx.x == 0 && shared().all_take_part) {
      count_wait<false>(shared().step.counter, before_ + (total_ - before_) * kEighths / 8);
    } else if (threadIdx.x == 0) {
      count_wait<true>(shared().step.counter, total_);
    }
    consumers_sync();
  }
  // Attention asks for a few values alone, and for earlier tokens' at once.
  __device__ __forceinline__ void before_attention() const {
    if (threadIdx.x == 0 && !shared().all_take_part) count_wait<true>(shared().step.counter, total_);
    consumers_sync();  // a call right behind it has all registers: without, the compiler spills three times as many
  }
  // A part that so many blocks take part in.
  __device__ __forceinline__ void pass(int takers) { before_ = total_, total_ += takers; }

 private:
  std::uint32_t before_ = 0, total_ = 0;  // counted before the last part and with it
};

// What a block that has read the activations of product m may make unset, before it leaves its own values. One warp.
__device__ __forceinline__ void unset_behind(int m, int share, int shares) {
  if (m == kQkv) unset(kGateUp, share, shares);
  if (m == kOut) unset(kDown, share, shares), unset(kQkv, share, shares);
  if (m == kGateUp) unset(kAttention, share, shares);
  if (m == kDown) unset(kOut, share, shares);
  __syncwarp();
  __threadfence();
}

}  // namespace step
}  // namespace ganglion::local::cuda
