#pragma once
// From what a request asks for to a grammar, and a bounded store of those that were made.

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backends/local/grammar/grammar.hpp"
#include "core/error.hpp"

namespace ganglion::local::grammar {

// How a family of models writes calls of functions. The parts may hold Vocabulary::special() codes.
struct CallSyntax {
  std::string opening;    // before the first call: "[TOOL_CALLS]["
  std::string begin;      // before each call's name: "<tool_call>\n{\"name\": \""
  std::string arguments;  // between name and arguments: "\", \"arguments\": "
  std::string end;        // after the arguments: "}\n</tool_call>"
  std::string between;    // between calls
  std::string closing;    // after the last call: "]"
  bool several = true;    // false: the model makes one call at most
};
struct CallFunction {
  std::string name;
  std::string parameters;  // JSON schema; "": any object
  bool strict = false;     // members that the schema does not name are not allowed
};

// What a text must be. With neither json nor calls there is nothing to compile.
struct Source {
  enum class Json : std::uint8_t { none, object, schema };
  Json json = Json::none;
  std::string schema;  // its text
  bool strict = false;

  std::vector<CallFunction> functions;  // that may be called
  CallSyntax syntax;
  enum class Calls : std::uint8_t {
    none,
    must,   // nothing but calls
    may,    // calls, or what `json` says
    after,  // any text, then calls if `trigger` comes
  };
  Calls calls = Calls::none;
  bool parallel = false;  // more than one call
  std::string trigger;    // Calls::after: what begins a call, the beginning of opening + begin

  std::string key() const;  // equal for equal grammars only
};

// Errors: invalid_value and unsupported, for the client; the message says where in the schema.
core::Result<std::shared_ptr<const Grammar>> compile(const Source& source,
                                                     std::shared_ptr<const Vocabulary> vocabulary);

// The grammars used last. Any thread.
class GrammarStore {
 public:
  struct Limits {
    std::size_t grammars_max = 64;
    std::size_t bytes_max = 256U << 20;  // masks included, as far as they are made
  };
  explicit GrammarStore(std::shared_ptr<const Vocabulary> vocabulary) : GrammarStore(std::move(vocabulary), Limits{}) {}
  GrammarStore(std::shared_ptr<const Vocabulary> vocabulary, Limits limits)
      : vocabulary_(std::move(vocabulary)), limits_(limits) {}

  // Compiles where it is not known; two threads that ask for the same at once may both.
  core::Result<std::shared_ptr<const Grammar>> get(const Source& source);
  std::size_t size() const;
  std::uint64_t compiled() const;

 private:
  using Entry = std::pair<std::string, std::shared_ptr<const Grammar>>;
  std::shared_ptr<const Vocabulary> vocabulary_;
  Limits limits_;
  mutable std::mutex mutex_;  // guards what follows
  std::list<Entry> entries_;  // used last in front
  std::unordered_map<std::string, std::list<Entry>::iterator> known_;
  std::uint64_t compiled_ = 0;
};

}  // namespace ganglion::local::grammar
