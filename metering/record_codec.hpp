#pragma once
// The ledger's bytes: frames (length, CRC32C, hash chain, sequence) and their payloads. Sans I/O; docs/ledger.md is the
// specification. Integers of the frame are little-endian, those of payloads are LEB128.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "metering/record.hpp"

namespace ganglion::metering {

enum class RecordType : std::uint8_t {
  segment = 1,   // first of every segment file
  carry = 2,     // checkpoint after it: one intent that was open when the segment began
  total = 3,     // checkpoint after it: one tenant's neurons of the day
  intent = 4,    // before the first dispatch
  attempt = 5,   // before each further dispatch
  terminal = 6,  // how a request ended
  close = 7,     // orderly shutdown
};

inline constexpr std::size_t kFrameHeaderBytes = 40;
inline constexpr std::size_t kPayloadBytesMax = 16 * 1024;
inline constexpr std::size_t kChainBytes = 16;
// Records are written as this version; all versions from 1 on are read. 2 added tags and the ledger's id.
inline constexpr std::uint8_t kFormatVersion = 2;
inline constexpr std::uint8_t kFormatWithTags = 2;
using Chain = std::array<std::uint8_t, kChainBytes>;

// Where the chain stands: what the next record continues.
struct ChainState {
  std::uint64_t next_sequence = 1;
  Chain chain{};
};

struct Frame {
  RecordType type{};
  std::uint8_t version = kFormatVersion;
  std::uint64_t sequence = 0;
  std::uint64_t durable_sequence = 0;  // all records up to here were known durable when this one was written
  Chain chain{};
  std::string_view payload;
  std::size_t bytes = 0;  // of the whole frame
};

class ChainHasher {
 public:
  // First 16 bytes of SHA-256(previous || rest).
  Chain next(const Chain& previous, std::string_view rest) const;
};

// Leaves room for a frame's header at the end of `out`; append the payload, then finish. Returns the frame's start.
std::size_t begin_frame(std::string& out);
// Fills the header of the frame that starts at `start` and ends with `out`, and moves the chain on.
void finish_frame(std::string& out, std::size_t start, RecordType type, std::uint64_t durable_sequence,
                  ChainState& state, ChainHasher& hasher);

enum class FrameStatus : std::uint8_t { ok, end, bad, newer };
// Reads the frame at the start of `bytes`: end if only zeros (or nothing) stand where its header would be, bad if
// length, type or CRC32C are wrong, newer if it is whole and of a format version that this program does not know.
// Sequence and chain are the caller's to check.
FrameStatus parse_frame(std::string_view bytes, Frame& out);
// The chain value that `frame`, parsed from the start of `bytes`, must have after `previous`.
Chain chain_of(std::string_view bytes, const Frame& frame, const Chain& previous, ChainHasher& hasher);

// LEB128 and length-prefixed text.
class Encoder {
 public:
  explicit Encoder(std::string& out) : out_(out) {}
  void number(std::uint64_t value);
  void wide(NeuronParts value);
  void text(std::string_view value);  // cut at kNameBytesMax
  void raw(std::string_view value) { out_.append(value); }

 private:
  std::string& out_;
};

// Reads what Encoder wrote; after the first lack or excess every value is 0 and ok() is false.
class Decoder {
 public:
  explicit Decoder(std::string_view in) : in_(in) {}
  std::uint64_t number();
  NeuronParts wide();
  std::string_view text();
  std::string_view raw(std::size_t bytes);
  std::size_t left() const { return in_.size(); }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && in_.empty(); }

 private:
  std::string_view in_;
  bool ok_ = true;
};

// Of one ledger directory, random; zero in records of version 1.
using LedgerId = std::array<std::uint8_t, 16>;

struct SegmentHeader {
  std::uint64_t epoch = 0;    // number of the segment, from 1
  std::uint64_t time_us = 0;  // wall clock
  Chain previous{};           // chain before this record
  std::uint64_t carries = 0;  // checkpoint records that follow
  std::uint64_t totals = 0;
  LedgerId ledger{};
};

// A dispatched request without a terminal record, with its encoded parts as records hold them.
struct OpenIntent {
  std::uint64_t sequence = 0;  // of its intent record
  std::string subject;         // encoded Subject, of the current version
  std::string backends;        // encoded names, in order of dispatch
  std::uint32_t attempts = 0;
};

struct TenantTotal {
  std::uint64_t day = 0;  // days since 1970-01-01 UTC
  std::string tenant;
  NeuronParts regular = 0;
  NeuronParts fast = 0;
};

void encode_segment(std::string& out, const SegmentHeader& header);
void encode_subject(std::string& out, const Subject& subject);
void encode_open(std::string& out, const OpenIntent& open);  // carry
void encode_total(std::string& out, const TenantTotal& total);
void encode_intent(std::string& out, std::uint64_t time_us, std::string_view subject, std::string_view backend);
void encode_attempt(std::string& out, std::uint64_t intent, std::uint32_t number, std::string_view backend);
void encode_terminal(std::string& out, std::uint64_t intent, std::uint64_t time_us, std::string_view subject,
                     const Terminal& terminal);

// Each takes the frame's version. false: the payload is not one of its type.
bool decode_segment(std::string_view payload, std::uint8_t version, SegmentHeader& out);
bool decode_open(std::string_view payload, std::uint8_t version, OpenIntent& out);
bool decode_total(std::string_view payload, TenantTotal& out);
bool decode_intent(std::string_view payload, std::uint8_t version, OpenIntent& out);  // sequence is left to the caller
bool decode_attempt(std::string_view payload, std::uint64_t& intent, std::uint32_t& number, std::string& backend);
bool decode_terminal(std::string_view payload, std::uint8_t version, LedgerRecord& out, std::uint64_t& intent);
std::vector<std::string> decode_backends(const OpenIntent& open);
bool decode_subject(const OpenIntent& open, LedgerRecord& out);

}  // namespace ganglion::metering
