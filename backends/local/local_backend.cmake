# What joins the local engine to the gateway: OpenAI's dialect over the engine, behind backends::Backend.
ganglion_library(backends_local SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/local_calibrate.cpp
  ${CMAKE_CURRENT_LIST_DIR}/chat_prompt.cpp
  ${CMAKE_CURRENT_LIST_DIR}/constraints.cpp
  ${CMAKE_CURRENT_LIST_DIR}/event_inbox.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_answer.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_backend.cpp
  ${CMAKE_CURRENT_LIST_DIR}/local_model.cpp
  ${CMAKE_CURRENT_LIST_DIR}/special_tokens.cpp
  ${CMAKE_CURRENT_LIST_DIR}/tool_calls.cpp
  ${CMAKE_CURRENT_LIST_DIR}/tool_style.cpp
  DEPS core api local_chat local_engine local_tokenizer local_weights)
