// Entries as bytes: what comes back is what went in, for any bytes; what was damaged, swapped or forged does not.

#include "cache/codec.hpp"

#include <gtest/gtest.h>

#include <random>

namespace ganglion::cache {
namespace {

using std::chrono::seconds;

const StoreSecret kSecret{"an installation's secret"};
constexpr core::SteadyTime kNow{std::chrono::hours{100}};
constexpr core::WallTime kWall{std::chrono::hours{24 * 365 * 56}};

StoreKey key_of(std::uint8_t n) {
  StoreKey key;
  key.bytes.fill(n);
  return key;
}

std::string random_bytes(std::mt19937_64& random, std::size_t size) {
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

// Compressible or not, short or long, with and without each optional part.
std::shared_ptr<Entry> random_entry(std::mt19937_64& random) {
  auto made = std::make_shared<Entry>();
  Entry& entry = *made;
  const auto text = [&](std::size_t most) { return random_bytes(random, random() % (most + 1)); };
  entry.tenant = text(64);
  entry.gateway = text(64);
  entry.model = text(128);
  entry.content_type = text(40);
  entry.custom_key = random() % 2 == 0 ? "" : text(1024);
  entry.endpoint = static_cast<api::Endpoint>(random() % 3);
  entry.status = static_cast<int>(200 + random() % 300);
  entry.refusal = random() % 2 == 0;
  entry.recorded_as = random() % 2 == 0 ? RecordedAs::stream : RecordedAs::whole;
  entry.body = random() % 2 == 0 ? text(20'000) : std::string(random() % 20'000, static_cast<char>(random()));
  if (!entry.body.empty() && random() % 2 == 0) {
    entry.usage_event.offset = random() % entry.body.size();
    entry.usage_event.length = 1 + random() % (entry.body.size() - entry.usage_event.offset);
  }
  if (random() % 2 == 0) {
    entry.usage = api::Usage{.input_tokens = random(),
                             .cached_input_tokens = random() % 1000,
                             .output_tokens = random() % 10,
                             .estimated = random() % 2 == 0};
  }
  std::uint32_t at = 0;
  for (std::uint32_t end = 0; end < entry.body.size() && random() % 8 != 0;) {
    end = std::min<std::uint32_t>(end + 1 + random() % 500, static_cast<std::uint32_t>(entry.body.size()));
    entry.pace.push_back({.end = end, .at_ms = at});
    at += random() % 3000;
  }
  for (std::size_t i = random() % (kEntryTagsMax + 1); i > 0; --i) entry.tags.push_back(text(kTagBytesMax));
  entry.ttl = seconds{random() % 2'592'001};
  entry.stale_while_revalidate = seconds{random() % 1000};
  entry.stale_if_error = seconds{random() % 100'000};
  entry.generation = random();
  entry.stored_wall = kWall - seconds{random() % 1'000'000};
  return made;
}

void expect_equal(const Entry& a, const Entry& b) {
  EXPECT_EQ(a.tenant, b.tenant);
  EXPECT_EQ(a.gateway, b.gateway);
  EXPECT_EQ(a.model, b.model);
  EXPECT_EQ(a.endpoint, b.endpoint);
  EXPECT_EQ(a.status, b.status);
  EXPECT_EQ(a.refusal, b.refusal);
  EXPECT_EQ(a.content_type, b.content_type);
  EXPECT_EQ(a.recorded_as, b.recorded_as);
  EXPECT_EQ(a.body, b.body);
  EXPECT_EQ(a.usage_event, b.usage_event);
  EXPECT_EQ(a.usage, b.usage);
  EXPECT_EQ(a.pace, b.pace);
  EXPECT_EQ(a.custom_key, b.custom_key);
  EXPECT_EQ(a.tags, b.tags);
  EXPECT_EQ(a.ttl, b.ttl);
  EXPECT_EQ(a.stale_while_revalidate, b.stale_while_revalidate);
  EXPECT_EQ(a.stale_if_error, b.stale_if_error);
  EXPECT_EQ(a.generation, b.generation);
  EXPECT_EQ(a.stored_wall, b.stored_wall);
}

auto decode(std::string_view bytes, const StoreKey& key = key_of(1), std::size_t body_max = 1 << 20) {
  return decode_entry(bytes, key, kSecret, body_max, kNow, kWall);
}

TEST(EntryCodec, AnyEntryComesBackAsItWas) {
  std::mt19937_64 random(20'261'125);
  for (int i = 0; i < 2000; ++i) {
    const auto made = random_entry(random);
    const Entry& entry = *made;
    ASSERT_TRUE(encodable(entry));
    const std::string bytes = encode_entry(entry, key_of(1), kSecret, random() % 2 == 0 ? 0 : 1000);
    const auto back = decode(bytes);
    ASSERT_TRUE(back.has_value()) << i;
    expect_equal(entry, **back);
    EXPECT_EQ((*back)->age(kNow), std::chrono::duration_cast<seconds>(kWall - entry.stored_wall));
    EXPECT_EQ(stamp_of(bytes), stamp_of(entry));
  }
}

TEST(EntryCodec, EveryFlippedBitIsSeen) {
  std::mt19937_64 random(7);
  const auto made = random_entry(random);
  Entry& entry = *made;
  entry.body = "some text, some text, some text, some text, some text, some text";
  entry.usage_event = {};
  entry.pace.clear();
  for (const std::size_t compress_above : {std::size_t{0}, std::size_t{10}}) {
    const std::string bytes = encode_entry(entry, key_of(1), kSecret, compress_above);
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      std::string damaged = bytes;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      ASSERT_FALSE(decode(damaged).has_value()) << "bit " << bit;
    }
  }
}

TEST(EntryCodec, EveryCutAndEverySuffixIsSeen) {
  std::mt19937_64 random(8);
  const std::string bytes = encode_entry(*random_entry(random), key_of(1), kSecret, 100);
  for (std::size_t size = 0; size < bytes.size(); size += 1 + size / 64) {
    ASSERT_FALSE(decode(bytes.substr(0, size)).has_value()) << size;
  }
  EXPECT_FALSE(decode(bytes + "x").has_value());
  EXPECT_FALSE(decode(bytes + bytes).has_value());
}

TEST(EntryCodec, AnotherKeysValueAndAnotherSecretsAreRefused) {
  std::mt19937_64 random(9);
  const auto made = random_entry(random);
  const Entry& entry = *made;
  const std::string bytes = encode_entry(entry, key_of(1), kSecret, 0);
  EXPECT_EQ(decode(bytes, key_of(2)).error(), CodecError::corrupt);
  const std::string forged = encode_entry(entry, key_of(1), StoreSecret{"a guess"}, 0);
  EXPECT_EQ(decode(forged).error(), CodecError::corrupt);
}

TEST(EntryCodec, AnotherVersionIsForeignAndALargeBodyIsNamed) {
  Entry entry;
  entry.body = std::string(5000, 'x');
  entry.stored_wall = kWall;
  std::string bytes = encode_entry(entry, key_of(1), kSecret, 100);
  EXPECT_LT(bytes.size(), 300U) << "compressed";
  EXPECT_EQ(decode(bytes, key_of(1), 4999).error(), CodecError::too_large);
  EXPECT_TRUE(decode(bytes, key_of(1), 5000).has_value());
  bytes[3] = 2;
  EXPECT_EQ(decode(bytes).error(), CodecError::foreign);
}

TEST(EntryCodec, AClockThatRanAheadDoesNotLengthenALife) {
  Entry entry;
  entry.ttl = seconds{60};
  entry.stored_wall = kWall + std::chrono::hours{5};
  const auto back = decode(encode_entry(entry, key_of(1), kSecret, 0));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ((*back)->stored, kNow);
  EXPECT_FALSE((*back)->fresh(kNow + seconds{60}));
}

TEST(EntryCodec, FieldsOverTheFormatsBoundsStayInMemory) {
  Entry entry;
  EXPECT_TRUE(encodable(entry));
  entry.content_type = std::string(4097, 'a');
  EXPECT_FALSE(encodable(entry));
  entry.content_type.clear();
  entry.tags.assign(kEntryTagsMax + 1, "t");
  EXPECT_FALSE(encodable(entry));
}

TEST(StoreKey, NamesDependOnTheSecretAndOnEveryByte) {
  const StoreKey name = kSecret.name("tenant gateway body");
  EXPECT_EQ(name, kSecret.name("tenant gateway body"));
  EXPECT_NE(name, kSecret.name("tenant gateway bodz"));
  EXPECT_NE(name, StoreSecret{"another"}.name("tenant gateway body"));
  EXPECT_EQ(name.hex().size(), 64U);
}

}  // namespace
}  // namespace ganglion::cache
