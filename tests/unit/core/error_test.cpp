// The error table: every kind has a face, names are unique, statuses are what clients expect.

#include "core/error.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace ganglion::core {
namespace {

TEST(ErrorTable, EveryKindHasADistinctName) {
  std::set<std::string> names;
  for (int kind = 0; kind < static_cast<int>(ErrorKind::kCount); ++kind) {
    names.insert(std::string{face(static_cast<ErrorKind>(kind)).name});
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(ErrorKind::kCount));
}

TEST(ErrorTable, StatusAgreesWithTheSourceOfTheError) {
  for (int i = 0; i < static_cast<int>(ErrorKind::kCount); ++i) {
    const ErrorFace& f = face(static_cast<ErrorKind>(i));
    if (f.source == ErrorSource::client && f.http_status != 0) EXPECT_EQ(f.http_status / 100, 4) << f.name;
    if (f.source == ErrorSource::upstream) EXPECT_EQ(f.http_status / 100, 5) << f.name;
    if (f.source == ErrorSource::client) EXPECT_FALSE(f.retryable) << f.name;
  }
}

TEST(ErrorTable, StatusesThatClientsActOn) {
  EXPECT_EQ(face(ErrorKind::unauthorized).http_status, 401);
  EXPECT_EQ(face(ErrorKind::model_not_found).http_status, 404);
  EXPECT_EQ(face(ErrorKind::request_timeout).http_status, 408);
  EXPECT_EQ(face(ErrorKind::payload_too_large).http_status, 413);
  EXPECT_EQ(face(ErrorKind::uri_too_long).http_status, 414);
  EXPECT_EQ(face(ErrorKind::rate_limited).http_status, 429);
  EXPECT_EQ(face(ErrorKind::header_too_large).http_status, 431);
  EXPECT_EQ(face(ErrorKind::ledger_unavailable).http_status, 503);
}

TEST(Error, TakesSourceAndRetryFromTheTable) {
  const Error error = make_error(ErrorKind::upstream_connect, "refused");
  EXPECT_EQ(error.source, ErrorSource::upstream);
  EXPECT_TRUE(error.retryable);
  EXPECT_EQ(error.message, "refused");
}

}  // namespace
}  // namespace ganglion::core
