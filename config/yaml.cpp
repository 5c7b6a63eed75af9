// yaml-cpp's events into our tree. The only file that includes yaml-cpp. Events rather than its Node type, because
// that one forgets the places of keys and aliases and merges documents silently.

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string>

#include "config/node.hpp"

namespace ganglion::config {
namespace {

// Copies of anchors count again: a document cannot blow up by aliases of aliases.
constexpr std::size_t kNodesMax = 200'000;
constexpr std::size_t kDepthMax = 32;

// `{port: ${PORT}}` is no YAML: the variable's } would end the map. So the braces of ${...} go through the parser as
// two control characters of one byte (columns stay right), which YAML itself forbids, and come back in scalars.
constexpr char kOpen = '\x01';
constexpr char kClose = '\x02';

std::string hide_variables(std::string_view text) {
  std::string out(text);
  for (std::size_t at = out.find("${"); at != std::string::npos; at = out.find("${", at + 1)) {
    const std::size_t end = out.find_first_of("}\n", at);
    if (end == std::string::npos || out[end] == '\n') continue;
    out[at + 1] = kOpen;
    out[end] = kClose;
  }
  return out;
}

std::string show_variables(std::string text) {
  std::ranges::replace(text, kOpen, '{');
  std::ranges::replace(text, kClose, '}');
  return text;
}

// The place of a byte, for what is found before the parser runs.
Diagnostic at_byte(std::string_view text, std::size_t byte, const std::string& file, std::string message) {
  const std::string_view before = text.substr(0, byte);
  const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
  return {.file = file,
          .line = static_cast<int>(std::ranges::count(before, '\n')) + 1,
          .column = static_cast<int>(byte - line_start) + 1,
          .message = std::move(message)};
}

class TreeBuilder final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(Node::Kind::null, mark), anchor, mark);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw YAML::ParserException(mark, "an alias inside its own anchor");
    Node copy = found->second;
    copy.line = mark.line + 1;
    copy.column = mark.column + 1;
    add(std::move(copy), 0, mark);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node = make(Node::Kind::scalar, mark);
    node.quoted = tag == "!";
    node.text = show_variables(value);
    if (!node.quoted && (value == "~" || value == "null" || value.empty())) node.kind = Node::Kind::null;
    add(std::move(node), anchor, mark);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(make(Node::Kind::list, mark), anchor, mark);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(make(Node::Kind::map, mark), anchor, mark);
  }
  void OnMapEnd() override { close(); }

  Node take_root() { return std::move(root_); }

 private:
  struct Open {
    Node node;
    YAML::anchor_t anchor;
  };

  static Node make(Node::Kind kind, const YAML::Mark& mark) {
    return {.kind = kind, .line = mark.line + 1, .column = mark.column + 1};
  }

  static std::size_t count(const Node& node) {
    std::size_t total = 1;
    for (const Node& item : node.items) total += count(item);
    return total;
  }

  void open(Node node, YAML::anchor_t anchor, const YAML::Mark& mark) {
    if (stack_.size() >= kDepthMax) throw YAML::ParserException(mark, "nested too deeply");
    stack_.push_back({std::move(node), anchor});
  }

  void close() {
    Open done = std::move(stack_.back());
    stack_.pop_back();
    add(std::move(done.node), done.anchor, YAML::Mark::null_mark());
  }

  void add(Node node, YAML::anchor_t anchor, const YAML::Mark& mark) {
    if (node.items.empty() || mark.line >= 0) nodes_ += count(node);
    if (nodes_ > kNodesMax) throw YAML::ParserException(mark, "too many nodes");
    if (anchor != 0) anchors_[anchor] = node;
    if (stack_.empty()) {
      root_ = std::move(node);
    } else {
      stack_.back().node.items.push_back(std::move(node));
    }
  }

  Node root_;
  std::vector<Open> stack_;
  std::map<YAML::anchor_t, Node> anchors_;
  std::size_t nodes_ = 0;
};

}  // namespace

const Node* Node::find(std::string_view name) const {
  for (std::size_t i = 0; kind == Kind::map && i < size(); ++i) {
    if (key(i).text == name) return &value(i);
  }
  return nullptr;
}

std::string_view kind_name(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "nothing";
    case Node::Kind::scalar:
      return "a single value";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a map";
  }
  return "nothing";
}

std::expected<Node, Diagnostic> parse_yaml(std::string_view text, const std::string& file) {
  const auto control =
      std::ranges::find_if(text, [](char c) { return c >= 0 && c < ' ' && c != '\t' && c != '\n' && c != '\r'; });
  if (control != text.end()) {
    const auto byte = static_cast<std::size_t>(control - text.begin());
    return std::unexpected(at_byte(text, byte, file, "YAML syntax: a control character"));
  }
  try {
    std::istringstream in{hide_variables(text)};
    YAML::Parser parser(in);
    TreeBuilder builder;
    if (!parser.HandleNextDocument(builder)) return Node{.kind = Node::Kind::map, .line = 1, .column = 1};
    Node root = builder.take_root();
    TreeBuilder second;
    if (parser.HandleNextDocument(second)) {
      const Node extra = second.take_root();
      return std::unexpected(Diagnostic{.file = file,
                                        .line = extra.line,
                                        .column = extra.column,
                                        .message = "a configuration is one YAML document; a second one begins here"});
    }
    if (root.kind == Node::Kind::null) root.kind = Node::Kind::map;
    return root;
  } catch (const YAML::Exception& e) {
    return std::unexpected(Diagnostic{
        .file = file, .line = e.mark.line + 1, .column = e.mark.column + 1, .message = "YAML syntax: " + e.msg});
  }
}

}  // namespace ganglion::config
