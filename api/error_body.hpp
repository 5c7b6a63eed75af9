#pragma once
// core::Error in OpenAI's shape: {"error":{"message","type","param","code"}}, as a body and as a stream event.

#include <string>
#include <string_view>

#include "core/error.hpp"

namespace ganglion::api {

int http_status(const core::Error& error);  // 0: no answer is owed

// An error without a message of its own gets the kind's standing sentence.
std::string openai_error_body(const core::Error& error);
// `data: {"error":{...}}` and its blank line: the last event of a stream that broke. No [DONE] follows it.
std::string openai_error_event(const core::Error& error);

}  // namespace ganglion::api
