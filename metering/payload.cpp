// Payloads of metering/record_codec.hpp, each written and read side by side.

#include <algorithm>

#include "metering/record_codec.hpp"

namespace ganglion::metering {
namespace {

constexpr std::string_view kMagic = "ganglion ledger";
constexpr std::uint64_t kFlagEstimated = 1;

template <class Enum>
bool to_enum(std::uint64_t value, Enum last, Enum& out) {
  if (value > static_cast<std::uint64_t>(last)) return false;
  out = static_cast<Enum>(value);
  return true;
}

bool read_tags(Decoder& in, api::Tags& tags) {
  const std::uint64_t count = in.number();
  if (count > api::kTagsMax) return false;
  tags.resize(count);
  for (api::Tag& tag : tags) {
    tag.name = in.text();
    if (!to_enum(in.number(), api::TagType::boolean, tag.type)) return false;
    tag.value = in.text();
  }
  return in.ok();
}

// Reads a Subject into the record's strings, or only past it (record == nullptr).
bool read_subject(Decoder& in, std::uint8_t version, LedgerRecord* record) {
  LedgerRecord scratch;
  LedgerRecord& to = record != nullptr ? *record : scratch;
  to.request_id = in.text();
  to.tenant = in.text();
  to.key_id = in.text();
  to.gateway = in.text();
  to.model = in.text();
  const bool endpoint = to_enum(in.number(), api::Endpoint::models, to.endpoint);
  const bool tier = to_enum(in.number(), api::Tier::fast, to.tier);
  to.tags.clear();
  return in.ok() && endpoint && tier && (version < kFormatWithTags || read_tags(in, to.tags));
}

// The encoded Subject at the front of `in`, taken off it, as the current version writes it.
bool take_subject(Decoder& in, std::uint8_t version, std::string_view all, std::string& out) {
  const std::size_t start = all.size() - in.left();
  if (!read_subject(in, version, nullptr)) return false;
  out = all.substr(start, all.size() - in.left() - start);
  if (version < kFormatWithTags) Encoder{out}.number(0);
  return true;
}

void write_units(Encoder& to, const Units& units) {
  for (const std::uint64_t count : {units.input_tokens, units.cached_input_tokens, units.output_tokens, units.requests,
                                    units.gpu_us, units.llm_responses, units.image_classifications, units.embeddings})
    to.number(count);
}

void read_units(Decoder& in, Units& units) {
  for (std::uint64_t* count : {&units.input_tokens, &units.cached_input_tokens, &units.output_tokens, &units.requests,
                               &units.gpu_us, &units.llm_responses, &units.image_classifications, &units.embeddings})
    *count = in.number();
}

}  // namespace

std::string_view name(Outcome outcome) {
  static constexpr std::array<std::string_view, 8> kNames{"completed", "cancelled", "upstream_error", "gateway_error",
                                                          "rejected",  "cache_hit", "aborted",        "unknown"};
  return kNames[static_cast<std::size_t>(std::min(outcome, Outcome::kCount))];
}

void encode_segment(std::string& out, const SegmentHeader& header) {
  Encoder to{out};
  to.text(kMagic);
  to.number(header.epoch);
  to.number(header.time_us);
  to.raw({reinterpret_cast<const char*>(header.previous.data()), header.previous.size()});
  to.number(header.carries);
  to.number(header.totals);
  to.raw({reinterpret_cast<const char*>(header.ledger.data()), header.ledger.size()});
}

bool decode_segment(std::string_view payload, std::uint8_t version, SegmentHeader& out) {
  Decoder in{payload};
  const bool magic = in.text() == kMagic;
  out.epoch = in.number();
  out.time_us = in.number();
  const std::string_view previous = in.raw(kChainBytes);
  std::ranges::copy(previous, reinterpret_cast<char*>(out.previous.data()));
  out.carries = in.number();
  out.totals = in.number();
  out.ledger = {};
  if (version >= kFormatWithTags) std::ranges::copy(in.raw(out.ledger.size()), out.ledger.begin());
  return in.done() && magic;
}

void encode_subject(std::string& out, const Subject& subject) {
  Encoder to{out};
  to.text(subject.request_id);
  to.text(subject.tenant);
  to.text(subject.key_id);
  to.text(subject.gateway);
  to.text(subject.model);
  to.number(static_cast<std::uint64_t>(subject.endpoint));
  to.number(static_cast<std::uint64_t>(subject.tier));
  const auto tags = subject.tags.first(std::min(subject.tags.size(), api::kTagsMax));
  to.number(tags.size());
  for (const api::Tag& tag : tags) {
    to.text(tag.name);
    to.number(static_cast<std::uint64_t>(tag.type));
    to.text(tag.value);
  }
}

void encode_open(std::string& out, const OpenIntent& open) {
  Encoder to{out};
  to.number(open.sequence);
  to.number(open.attempts);
  to.raw(open.subject);
  to.raw(open.backends);
}

bool decode_open(std::string_view payload, std::uint8_t version, OpenIntent& out) {
  Decoder in{payload};
  out.sequence = in.number();
  const std::uint64_t attempts = in.number();
  if (!take_subject(in, version, payload, out.subject) || attempts > kAttemptsMax) return false;
  out.attempts = static_cast<std::uint32_t>(attempts);
  out.backends = in.raw(in.left());
  return decode_backends(out).size() == attempts;
}

void encode_total(std::string& out, const TenantTotal& total) {
  Encoder to{out};
  to.number(total.day);
  to.text(total.tenant);
  to.wide(total.regular);
  to.wide(total.fast);
}

bool decode_total(std::string_view payload, TenantTotal& out) {
  Decoder in{payload};
  out.day = in.number();
  out.tenant = in.text();
  out.regular = in.wide();
  out.fast = in.wide();
  return in.done();
}

void encode_intent(std::string& out, std::uint64_t time_us, std::string_view subject, std::string_view backend) {
  Encoder to{out};
  to.number(time_us);
  to.raw(subject);
  to.text(backend);
}

bool decode_intent(std::string_view payload, std::uint8_t version, OpenIntent& out) {
  Decoder in{payload};
  in.number();
  if (!take_subject(in, version, payload, out.subject)) return false;
  out.backends.clear();
  Encoder{out.backends}.text(in.text());
  out.attempts = 1;
  return in.done();
}

void encode_attempt(std::string& out, std::uint64_t intent, std::uint32_t number, std::string_view backend) {
  Encoder to{out};
  to.number(intent);
  to.number(number);
  to.text(backend);
}

bool decode_attempt(std::string_view payload, std::uint64_t& intent, std::uint32_t& number, std::string& backend) {
  Decoder in{payload};
  intent = in.number();
  number = static_cast<std::uint32_t>(std::min<std::uint64_t>(in.number(), 0xFFFF'FFFF));
  backend = in.text();
  return in.done();
}

std::vector<std::string> decode_backends(const OpenIntent& open) {
  std::vector<std::string> out;
  Decoder in{open.backends};
  while (in.left() != 0 && out.size() < kAttemptsMax) {
    const std::string_view backend = in.text();
    if (!in.ok()) break;
    out.emplace_back(backend);
  }
  return out;
}

bool decode_subject(const OpenIntent& open, LedgerRecord& out) {
  Decoder in{open.subject};
  return read_subject(in, kFormatVersion, &out) && in.done();
}

void encode_terminal(std::string& out, std::uint64_t intent, std::uint64_t time_us, std::string_view subject,
                     const Terminal& terminal) {
  Encoder to{out};
  to.number(intent);
  to.number(time_us);
  to.raw(subject);
  to.number(static_cast<std::uint64_t>(terminal.outcome));
  to.text(terminal.reason);
  to.number(terminal.estimated ? kFlagEstimated : 0);
  write_units(to, terminal.units);
  to.number(static_cast<std::uint64_t>(std::max<api::NanoNeurons>(terminal.charge.nano_neurons, 0)));
  to.wide(terminal.charge.exact);
  to.number(terminal.charge.usd_pico_per_neuron);
  to.text(terminal.charge.schedule);
  to.number(static_cast<std::uint64_t>(terminal.charge.source));
  to.number(static_cast<std::uint64_t>(std::max(terminal.http_status, 0)));
  to.number(static_cast<std::uint64_t>(std::max<std::int64_t>(terminal.latency.count(), 0)));
  const std::size_t attempts = std::min(terminal.attempts.size(), kAttemptsMax);
  to.number(attempts);
  for (const Attempt& attempt : terminal.attempts.first(attempts)) {
    to.text(attempt.backend);
    to.number(static_cast<std::uint64_t>(std::max(attempt.http_status, 0)));
    to.text(attempt.reason);
  }
}

bool decode_terminal(std::string_view payload, std::uint8_t version, LedgerRecord& out, std::uint64_t& intent) {
  Decoder in{payload};
  intent = in.number();
  out.time = std::chrono::microseconds{static_cast<std::int64_t>(in.number())};
  if (!read_subject(in, version, &out)) return false;
  if (!to_enum(in.number(), Outcome::aborted, out.outcome)) return false;
  out.reason = in.text();
  const std::uint64_t flags = in.number();
  out.estimated = (flags & kFlagEstimated) != 0;
  read_units(in, out.units);
  out.nano_neurons = static_cast<api::NanoNeurons>(in.number());
  out.exact = in.wide();
  out.usd_pico_per_neuron = in.number();
  out.schedule = in.text();
  if (!to_enum(in.number(), PriceSource::free, out.price_source)) return false;
  out.http_status = static_cast<int>(in.number() & 0x7FFF'FFFF);
  out.latency = std::chrono::microseconds{static_cast<std::int64_t>(in.number())};
  const std::uint64_t attempts = in.number();
  if (!in.ok() || attempts > kAttemptsMax || out.nano_neurons < 0 || flags > kFlagEstimated) return false;
  out.attempts.clear();
  for (std::uint64_t i = 0; i < attempts; ++i) {
    LedgerRecord::Try one;
    one.backend = in.text();
    one.http_status = static_cast<int>(in.number() & 0x7FFF'FFFF);
    one.reason = in.text();
    out.attempts.push_back(std::move(one));
  }
  return in.done();
}

}  // namespace ganglion::metering
