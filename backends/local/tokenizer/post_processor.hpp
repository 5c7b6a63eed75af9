#pragma once
// The post_processor of tokenizer.json, for one sequence: which special ids stand before and after the text.

#include <cstdint>
#include <vector>

#include "backends/local/tokenizer/spec.hpp"

namespace ganglion::local::tok {

class PostProcessor {
 public:
  PostProcessor() = default;                 // adds nothing
  explicit PostProcessor(const Spec& spec);  // throws LoadError

  const std::vector<std::int32_t>& before() const { return before_; }
  const std::vector<std::int32_t>& after() const { return after_; }

 private:
  void add(const Spec& spec, int depth);
  void add_template(const Spec& spec);

  std::vector<std::int32_t> before_;
  std::vector<std::int32_t> after_;
};

}  // namespace ganglion::local::tok
