// Digests against published test vectors.

#include "core/digest.hpp"
#include "core/hash_stream.hpp"
#include "core/sha256.hpp"

#include <gtest/gtest.h>

#include <random>

namespace ganglion::core {
namespace {

TEST(Digest, Sha256OfAbc) {
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Digest, HmacSha256Rfc4231Case2) {
  EXPECT_EQ(hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Digest, TheShortWayAgreesWithOpenSslsLongOne) {
  std::string text;
  std::string key;
  for (int i = 0; i < 200; ++i) {
    Sha256State state;
    const std::size_t cut = text.size() / 3;
    state.update(std::string_view{text}.substr(0, cut));
    state.update(std::string_view{text}.substr(cut));
    EXPECT_EQ(hex(state.finish()), hex(sha256(text))) << text.size();
    const HmacSha256 keyed{key};  // from none over one block to several
    EXPECT_EQ(hex(keyed(text)), hex(hmac_sha256(key, text))) << key.size();
    EXPECT_EQ(hex(keyed(text)), hex(hmac_sha256(key, text))) << "used again";
    text += static_cast<char>('a' + i % 26);
    key += static_cast<char>(i);
  }
}

TEST(Digest, Crc32cOfTheCheckString) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
}

TEST(Digest, Crc32cContinues) {
  const std::string text = "the quick brown fox jumps over the lazy dog";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(crc32c(text.substr(cut), crc32c(text.substr(0, cut))), crc32c(text));
  }
}

TEST(Digest, Hash128DependsOnTheSeed) {
  EXPECT_NE(hash128("a", 1), hash128("a", 2));
  EXPECT_EQ(hash128("a", 1), hash128("a", 1));
}

TEST(Digest, RandomHexIsFreshEachTime) {
  EXPECT_EQ(random_hex(16).size(), 32U);
  EXPECT_NE(random_hex(16), random_hex(16));
}

TEST(Hash128Stream, IsTheHashOfThePartsPutTogether) {
  std::mt19937_64 random{11};
  std::string text(20'000, '\0');
  for (char& c : text) c = static_cast<char>(random());
  Hash128Stream stream;
  for (int round = 0; round < 200; ++round) {
    const std::uint64_t seed = round % 3 == 0 ? 0 : random();
    const std::string_view whole = std::string_view{text}.substr(0, random() % (round % 2 == 0 ? 600 : text.size()));
    stream.reset(seed);
    for (std::string_view left = whole; !left.empty();) {
      const std::string_view part = left.substr(0, random() % 700);
      stream.update(part);
      left.remove_prefix(part.size());
    }
    EXPECT_EQ(stream.digest(), hash128(whole, seed)) << whole.size();
  }
}

}  // namespace
}  // namespace ganglion::core
