#pragma once
// Serialises message heads into a reused string.

#include <cstdint>
#include <ctime>
#include <string>
#include <string_view>

#include "net/http_types.hpp"

namespace ganglion::net::http1 {

std::string_view reason_phrase(int status);

// False (and nothing appended) when the name is no token or the value holds a control character.
bool append_header(std::string& out, std::string_view name, std::string_view value);
void append_number(std::string& out, std::uint64_t value);

// "1f\r\n" into a caller's buffer of at least 18 bytes; the view is into it.
std::string_view chunk_size_line(std::uint64_t size, char* buffer);

// The Date header's value, rendered once a second. One per thread.
class DateCache {
 public:
  std::string_view now();

 private:
  std::time_t rendered_at_ = 0;
  char text_[30] = {};
};

enum class ResponseFraming : std::uint8_t { length, chunked, none };

// Status line, Date, Content-Type, the extra headers, framing, Connection, blank line.
void append_response_head(std::string& out, const ResponseHead& head, ResponseFraming framing, std::uint64_t length,
                          bool http10, bool keep_alive, std::string_view date);

}  // namespace ganglion::net::http1
