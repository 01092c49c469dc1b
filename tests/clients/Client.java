// Java's java.net.http. See python_sdks.py for what it reads and prints.
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

public class Client {
    interface Attempt {
        void run() throws Exception;
    }

    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static HttpRequest post(String path, String body) {
        return HttpRequest.newBuilder(URI.create(System.getenv("BASE_URL") + path))
                .header("Authorization", "Bearer " + System.getenv("API_KEY"))
                .header("Content-Type", "application/json")
                .timeout(Duration.ofSeconds(60))
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
    }

    static String chat(String model, String more) {
        return "{\"model\":\"" + model + "\",\"messages\":[{\"role\":\"user\",\"content\":"
                + "\"one two three\"}]" + more + "}";
    }

    static HttpResponse<String> send(HttpRequest request) throws Exception {
        return CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
    }

    static void expect(boolean condition, Object why) {
        if (!condition) {
            throw new IllegalStateException(String.valueOf(why));
        }
    }

    static void attempt(String name, Attempt attempt) {
        try {
            attempt.run();
            System.out.println("PASS Java java.net.http: " + name);
        } catch (Exception error) {
            System.out.println("FAIL Java java.net.http: " + name + ": " + error);
        }
    }

    public static void main(String[] args) {
        attempt("a model name, from URL and key alone", () -> {
            var whole = send(post("/v1/chat/completions", chat("demo", "")));
            expect(whole.statusCode() == 200, whole.body());
            expect(whole.body().contains("\"one two three\""), whole.body());
        });
        attempt("streaming", () -> {
            var request = post("/v1/chat/completions", chat("demo", ",\"stream\":true"));
            var lines = CLIENT.send(request, HttpResponse.BodyHandlers.ofLines()).body();
            var events = lines.filter(line -> line.startsWith("data: ")).count();
            expect(events == 6, events + " events");
        });
        attempt("a cut stream is an error", () -> {
            var body = chat("demo", ",\"stream\":true,\"break_after\":2");
            try {
                var whole = send(post("/v1/chat/completions", body));
                throw new IllegalStateException("the cut was not seen: " + whole.body());
            } catch (IOException expected) {
                // The connection ended before the response did.
            }
        });
        attempt("the reason is there", () -> {
            var told = send(post("/v1/chat/completions", chat("nothing", "")));
            expect(told.statusCode() == 404, told.statusCode());
            expect(told.body().contains("\"code\":\"model_not_found\""), told.body());
        });
    }
}
