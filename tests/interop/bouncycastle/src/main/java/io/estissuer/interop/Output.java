package io.estissuer.interop;

import java.util.ArrayList;
import java.util.Base64;
import java.util.List;

/** What a command tells: lines of name=value; a name may come again. */
final class Output {
  private final List<String> lines = new ArrayList<>();

  void put(String name, Object value) {
    lines.add(name + "=" + String.valueOf(value).replace("\n", " "));
  }

  void put(String name, byte[] octets) {
    put(name, Base64.getEncoder().encodeToString(octets));
  }

  void print() {
    lines.forEach(System.out::println);
  }
}
