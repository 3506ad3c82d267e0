package io.estissuer.interop;

import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** A command and its options; an option that no command reads does no harm. */
final class Options {
  private final String command;
  private final Map<String, String> values = new HashMap<>();

  Options(String[] arguments) {
    command = arguments[0];
    for (int index = 1; index < arguments.length; index += 2) {
      if (!arguments[index].startsWith("--") || index + 1 == arguments.length) {
        throw new IllegalArgumentException("options are --name value");
      }
      values.put(arguments[index].substring(2), arguments[index + 1]);
    }
  }

  String command() {
    return command;
  }

  boolean has(String name) {
    return values.containsKey(name);
  }

  String get(String name) {
    String value = values.get(name);
    if (value == null) {
      throw new IllegalArgumentException("needs --" + name);
    }
    return value;
  }

  String get(String name, String otherwise) {
    return values.getOrDefault(name, otherwise);
  }

  Path path(String name) {
    return Path.of(get(name));
  }
}
