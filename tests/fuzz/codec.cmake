# Configuration, labels, admin bodies, embeddings, prices, anchors and journals.
if(TARGET ganglion_gateway AND TARGET ganglion_config)
  foreach(codec config labels purge embedding prices anchors alert_journal semantic_journal idempotency)
    ganglion_fuzz(${codec} SOURCE ${CMAKE_CURRENT_LIST_DIR}/fuzz_${codec}.cpp SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_property.cpp
      DEPS config gateway)
  endforeach()
endif()
