# The local engine behind backends::Backend.
ganglion_test(backends_local SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/event_inbox_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_calibrate_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_chat_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_completions_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_draft_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_lifecycle_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_lora_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_prefix_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_structured_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/tool_calls_test.cpp
  DEPS backends_local)
